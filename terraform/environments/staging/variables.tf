variable "project" {
  description = "Project of Google Cloud that pays."
  type        = string
}

variable "region" {
  description = "Region, as europe-west3."
  type        = string
  default     = "europe-west3"
}

variable "administrators" {
  description = "CIDR ranges from which the control plane may be reached, with a name each."
  type        = map(string)
}
