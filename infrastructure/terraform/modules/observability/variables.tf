variable "name" {
  description = "Prefix of all names, such as bidding-dev."
  type        = string
}

variable "environment" {
  description = "Value of the tag Environment, by which the budget counts."
  type        = string
}

variable "account_id" {
  description = "The account."
  type        = string
}

variable "region" {
  description = "The region."
  type        = string
}

variable "kms_key_arn" {
  description = "Key of the topic."
  type        = string
}

variable "alarm_emails" {
  description = "Who is told."
  type        = list(string)
}

variable "budget_usd" {
  description = "What the environment may cost in a month."
  type        = number

  validation {
    condition     = var.budget_usd > 0
    error_message = "budget_usd must be more than 0."
  }
}

variable "alb_arn_suffix" {
  description = "The load balancer, as CloudWatch names it."
  type        = string
}

variable "target_group_suffixes" {
  description = "Target groups of gateway and broadcaster, and of front ends of the read cache, as CloudWatch names them."
  type        = map(string)
}

variable "web_acl_name" {
  description = "The firewall, as CloudWatch names it."
  type        = string
}

variable "cluster_name" {
  description = "The ECS cluster."
  type        = string
}

variable "service_names" {
  description = "ECS services whose CPU is watched, by their names: nothing here waits for a service."
  type        = list(string)
}

variable "scrapes" {
  description = "Whether a collector scrapes /metrics, so that there is something to show of it."
  type        = bool
}

variable "redis_node_ids" {
  description = "Nodes of ElastiCache; empty for MemoryDB."
  type        = list(string)
}

variable "memorydb_cluster" {
  description = "Cluster of MemoryDB; null for ElastiCache."
  type        = string
}

variable "postgres_identifier" {
  description = "The RDS instance."
  type        = string
}

variable "own_metrics" {
  description = "Namespace and names of what the services report, and how they call themselves."
  type = object({
    namespace    = string
    services     = map(string)
    outbox       = string
    outbox_all   = string
    decided      = string
    shed         = string
    shards_lost  = string
    items_lost   = string
    consumer_lag = string
    dead_letters = string
    commit_time  = string
    connections  = string
    frames       = string
    frame_time   = string
  })
}

variable "limits" {
  description = "Thresholds of the alarms."
  type = object({
    outbox_entries     = number
    consumer_lag       = number
    connections        = number
    errors_per_minute  = number
    p99_s              = number
    free_storage_bytes = number
  })
}

variable "cache_panels" {
  description = "Panels of the read cache, each as JSON with title, statistic and lines."
  type        = list(string)
}
