variable "versions" {
  description = "Charts' versions. The manifests in k8s/ are checked against the custom resources of these."
  type = object({
    strimzi      = string
    keda         = string
    cert_manager = string
    prometheus   = string
  })
  default = {
    strimzi      = "1.2.0"
    keda         = "2.18.0"
    cert_manager = "v1.19.0"
    prometheus   = "79.0.0"
  }
  validation {
    condition     = startswith(var.versions.strimzi, "1.")
    error_message = "Strimzi 1.x: k8s/ uses kafka.strimzi.io/v1."
  }
}

variable "namespace" {
  description = "Namespace of cartwin, which the operators watch."
  type        = string
  default     = "cartwin"
}

variable "retention_days" {
  description = "How long Prometheus keeps what it scraped."
  type        = number
  default     = 30
  validation {
    condition     = var.retention_days >= 30
    error_message = "objectives are over 30 days: keep at least as long."
  }
}
