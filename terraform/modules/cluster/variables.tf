variable "name" {
  description = "Name of the cluster, and prefix of its parts."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "name has 3 to 20 lower-case letters, digits and dashes, and begins with a letter."
  }
}

variable "project" {
  description = "Project of Google Cloud."
  type        = string
}

variable "region" {
  description = "Region; the control plane and every pool lie in three of its zones."
  type        = string
}

variable "network" {
  description = "Id of the network (module network)."
  type        = string
}

variable "subnetwork" {
  description = "Id of the subnetwork of nodes (module network)."
  type        = string
}

variable "range_names" {
  description = "Names of the secondary ranges of pods and services (module network)."
  type        = object({ pods = string, services = string })
}

variable "administrators" {
  description = "CIDR ranges from which the control plane may be reached, with a name each."
  type        = map(string)
  validation {
    condition     = length(var.administrators) > 0 && alltrue([for range in values(var.administrators) : can(cidrhost(range, 0)) && range != "0.0.0.0/0"])
    error_message = "administrators names at least one CIDR range, and not the whole world."
  }
}

variable "pools" {
  description = "Pools by name: machine type, nodes in each zone at least and at most, spot, tainted for one use."
  type = map(object({
    machine_type = string
    least        = number
    most         = number
    spot         = optional(bool, false)
    taint        = optional(string)
    disk_gb      = optional(number, 100)
  }))
  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.least >= 0 && pool.least <= pool.most && pool.most > 0])
    error_message = "a pool has 0 <= least <= most nodes, and most is above 0."
  }
  validation {
    condition     = alltrue([for name in ["system", "kafka", "app"] : contains(keys(var.pools), name)])
    error_message = "the pools system, kafka and app are needed."
  }
  validation {
    condition     = !try(var.pools["kafka"].spot, false)
    error_message = "kafka keeps what was acknowledged: its nodes are never spot."
  }
}

variable "deletion_protection" {
  description = "Whether terraform refuses to destroy the cluster."
  type        = bool
  default     = true
}
