variable "name" {
  description = "Prefix of all names; at most 20 characters, because target groups allow 32."
  type        = string

  validation {
    condition     = length(var.name) <= 20
    error_message = "name may have at most 20 characters."
  }
}

variable "vpc_id" {
  description = "The VPC of the targets."
  type        = string
}

variable "public_subnet_ids" {
  description = "At least two subnets in different zones."
  type        = list(string)
}

variable "security_group_id" {
  description = "Security group of the balancer."
  type        = string
}

variable "log_bucket" {
  description = "Name of the bucket for access logs."
  type        = string
}

variable "kms_key_arn" {
  description = "Key of the firewall's log group."
  type        = string
}

variable "log_retention_days" {
  description = "Days to keep the firewall's log."
  type        = number
}

variable "domain_name" {
  description = "Name under which API, pages and feed are reached."
  type        = string
}

variable "certificate_arn" {
  description = "A certificate of ACM in this region; null to order one."
  type        = string
}

variable "hosted_zone_id" {
  description = "The domain's zone in Route 53; null where it is elsewhere."
  type        = string
}

variable "operator_cidrs" {
  description = "IPv4 networks that may create, pause, resume, extend, cancel and void, and read /metrics."
  type        = list(string)
}

variable "with_tokens" {
  description = "Whether a token says who calls. Without, operator_cidrs are all that keeps others from what is an operator's."
  type        = bool
}

variable "requests_per_address" {
  description = "Requests of one address in 60 s; past it the firewall answers 403. 10 to 2,000,000,000."
  type        = number
}

variable "proxy_cidrs" {
  description = "IPv4 networks of the site or CDN in front, whose requests are those of many people: they are counted by the first address in X-Forwarded-For, which that proxy has to write itself. Empty where browsers come by themselves."
  type        = list(string)
}

variable "requests_per_proxy" {
  description = "Requests of one address of such a proxy in 60 s, all people together. 10 to 2,000,000,000."
  type        = number
}

variable "idle_timeout_s" {
  description = "Seconds without a byte after which a connection is closed. Above two pings of the feed, below the services' keep-alive."
  type        = number
  default     = 60

  validation {
    condition     = var.idle_timeout_s > 40 && var.idle_timeout_s < 75
    error_message = "idle_timeout_s must lie between 40 (two pings of the feed) and 75 (keep-alive of the services)."
  }
}

variable "deletion_protection" {
  description = "Whether the balancer refuses to be deleted."
  type        = bool
}

variable "front_end" {
  description = "Whether `/api` leads to the front ends of the read cache."
  type        = bool
}
