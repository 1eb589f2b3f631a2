variable "name" {
  description = "Name of the bucket, unique in the world."
  type        = string
}

variable "region" {
  description = "Where models lie."
  type        = string
}

variable "project" {
  description = "Project of Google Cloud."
  type        = string
}

variable "workload_pool" {
  description = "Pool of the pods' identities (module cluster)."
  type        = string
}

variable "readers" {
  description = "Kubernetes service accounts, namespace/name, that read models."
  type        = set(string)
  default     = ["cartwin/scorer", "cartwin/trainer"]
  validation {
    condition     = alltrue([for account in var.readers : can(regex("^[a-z0-9-]+/[a-z0-9-]+$", account))])
    error_message = "readers are namespace/name."
  }
}
