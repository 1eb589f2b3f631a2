variable "name" {
  description = "Name of the repository of images."
  type        = string
}

variable "region" {
  description = "Where images lie."
  type        = string
}

variable "project" {
  description = "Project of Google Cloud."
  type        = string
}

variable "keep" {
  description = "So many newest images of each name are kept; older ones go after 30 days."
  type        = number
  default     = 10
  validation {
    condition     = var.keep >= 2
    error_message = "keep at least 2: the one that runs, and the one to go back to."
  }
}
