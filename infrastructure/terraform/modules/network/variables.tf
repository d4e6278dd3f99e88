variable "name" {
  description = "Prefix of all names, such as bidding-dev."
  type        = string
}

variable "region" {
  description = "Region, for the names of the endpoints."
  type        = string
}

variable "cidr" {
  description = "Addresses of the VPC, a /16. Each subnet is a /20 of it."
  type        = string

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && endswith(var.cidr, "/16")
    error_message = "cidr must be a /16, such as 10.20.0.0/16."
  }
}

variable "zones" {
  description = "Names of the availability zones to spread over, two or three."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && length(var.zones) <= 3
    error_message = "Two or three availability zones are needed."
  }
}

variable "endpoint_zones" {
  description = "How many zones get an interface endpoint of their own. Tasks of other zones use it across zones."
  type        = number

  validation {
    condition     = var.endpoint_zones >= 1 && var.endpoint_zones <= 3
    error_message = "endpoint_zones must be 1 to 3."
  }
}

variable "endpoint_services" {
  description = "AWS services that tasks reach through interface endpoints, such as ecr.api."
  type        = set(string)
}

variable "alb_ingress_cidrs" {
  description = "Networks that may reach the load balancer."
  type        = list(string)
}

variable "redis_port" {
  description = "Port of Redis."
  type        = number
  default     = 6379
}

variable "flow_logs" {
  description = "Whether rejected traffic is recorded."
  type        = bool
}

variable "flow_log_bucket_arn" {
  description = "Bucket for those records."
  type        = string
}

variable "writable_bucket_arn" {
  description = "The one bucket of S3 that tasks reach, besides the one from which ECR serves the layers of images."
  type        = string
}

variable "read_cache" {
  description = "Whether nodes and front ends of the read cache run."
  type        = bool
}

variable "front_end_behind_alb" {
  description = "Whether the load balancer leads to the front ends."
  type        = bool
}

variable "front_end_clients" {
  description = "Security groups of other programs that may ask the front ends."
  type        = list(string)
}
