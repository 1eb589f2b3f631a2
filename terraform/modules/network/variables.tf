variable "name" {
  description = "Prefix of everything that is made: 3 to 20 lower-case letters, digits and dashes."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "name has 3 to 20 lower-case letters, digits and dashes, and begins with a letter."
  }
}

variable "region" {
  description = "Where: a region of Google Cloud, as europe-west3."
  type        = string
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is a region as europe-west3, not a zone."
  }
}

variable "ranges" {
  description = "Address ranges of nodes, pods and services: private, not overlapping."
  type = object({
    nodes    = string
    pods     = string
    services = string
  })
  default = {
    nodes    = "10.0.0.0/20"
    pods     = "10.4.0.0/14"
    services = "10.1.0.0/20"
  }
  validation {
    condition     = alltrue([for range in values(var.ranges) : can(cidrhost(range, 0)) && startswith(range, "10.")])
    error_message = "every range is a CIDR within 10.0.0.0/8."
  }
}
