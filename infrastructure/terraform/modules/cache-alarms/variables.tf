variable "name" {
  description = "Prefix of all names, such as bidding-dev."
  type        = string
}

variable "topic_arn" {
  description = "Where alarms go."
  type        = string
}

variable "metrics" {
  description = "Namespace and names of what is reported, and how those that read through the cache call themselves."
  type = object({
    namespace  = string
    services   = object({ gateway = string, node = string, front_end = string })
    gets       = string
    loads      = string
    shed       = string
    seconds    = string
    served     = string
    evictions  = string
    bytes      = string
    ring_nodes = string
    keeping    = string
  })
}

variable "scrapes" {
  description = "Whether a collector scrapes /metrics, so that there is something to show of it."
  type        = bool
}

variable "limits" {
  description = "Thresholds. gets: below so many in a minute, neither rate nor p99 counts. questions: in a minute. nodes: the fewest."
  type = object({
    hit_rate         = number
    hit_rate_minutes = number
    gets             = number
    p99_s            = number
    questions        = number
    nodes            = number
  })
}
