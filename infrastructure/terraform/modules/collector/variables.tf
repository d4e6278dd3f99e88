variable "service" {
  description = "How the service calls itself in CloudWatch, such as api_gateway."
  type        = string
}

variable "port" {
  description = "Where its /metrics is, at 127.0.0.1 of the task."
  type        = number
}

variable "metrics" {
  description = "Names of the metrics that are kept, as /metrics has them."
  type        = list(string)

  validation {
    condition     = length(var.metrics) > 0 && alltrue([for name in var.metrics : can(regex("^[a-z_]+$", name))])
    error_message = "metrics are names as /metrics has them, and at least one."
  }
}

variable "image" {
  description = "The collector's image with its tag."
  type        = string
}

variable "region" {
  description = "The region."
  type        = string
}

variable "namespace" {
  description = "Namespace in CloudWatch."
  type        = string
}

variable "log_group" {
  description = "The log group whose lines become metrics."
  type        = string
}

variable "service_log_group" {
  description = "The log group of the service, for what the collector itself has to say."
  type        = string
}
