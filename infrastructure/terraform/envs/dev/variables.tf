# Everything that can be chosen for dev. Without a default: terraform.tfvars has to say it.

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "us-east-1"
}

variable "project" {
  description = "Prefix of names, before the environment; the repositories of bootstrap/ carry it too."
  type        = string
  default     = "bidding"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,11}$", var.project))
    error_message = "project is 2 to 12 of a-z, 0-9 and -, and begins with a letter."
  }
}

variable "domain_name" {
  description = "Name under which API, pages and feed are reached, such as auction.example.com."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.domain_name))
    error_message = "domain_name is a host name in small letters, without https://."
  }
}

variable "certificate_arn" {
  description = "A certificate of ACM for it, in this region; null to order one, which needs hosted_zone_id."
  type        = string
  default     = null

  validation {
    condition     = var.certificate_arn == null ? true : can(regex("^arn:aws[a-z-]*:acm:", var.certificate_arn))
    error_message = "certificate_arn begins with arn:aws:acm:."
  }

  validation {
    condition     = var.certificate_arn != null || var.hosted_zone_id != null
    error_message = "Give certificate_arn or hosted_zone_id."
  }
}

variable "hosted_zone_id" {
  description = "The domain's zone in Route 53, such as Z0123456789ABC; null where the zone is elsewhere."
  type        = string
  default     = null
}

variable "image_tag" {
  description = "Tag of the platform's image in ECR. Tags are not moved: use the commit."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", var.image_tag)) && var.image_tag != "latest"
    error_message = "image_tag is a tag of the image, and not latest."
  }
}

variable "nats_image_tag" {
  description = "Tag of the image of NATS in ECR."
  type        = string
  default     = "2.15"
}

variable "cpu_architecture" {
  description = "ARM64, which is a fifth cheaper, or X86_64. The images have to be built for it."
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.cpu_architecture)
    error_message = "cpu_architecture is ARM64 or X86_64."
  }
}

variable "cidr" {
  description = "Addresses of the VPC, a /16."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && endswith(var.cidr, "/16")
    error_message = "cidr is a /16, such as 10.20.0.0/16."
  }
}

variable "zones" {
  description = "Letters of the availability zones, two or three; pinned, so that a zone that AWS opens moves nothing. Three NATS servers want three: with two, one zone has the majority."
  type        = list(string)
  default     = ["a", "b"]

  validation {
    condition     = contains([2, 3], length(distinct(var.zones))) && alltrue([for zone in var.zones : can(regex("^[a-z]$", zone))])
    error_message = "zones are two or three letters, such as a and b."
  }
}

variable "endpoint_zones" {
  description = "Zones with interface endpoints of their own; each costs as much again."
  type        = number
  default     = 1

  validation {
    condition     = var.endpoint_zones >= 1 && var.endpoint_zones <= length(var.zones)
    error_message = "endpoint_zones is 1 to the number of zones."
  }
}

variable "redis_engine" {
  description = "elasticache, or memorydb, which is durable."
  type        = string
  default     = "elasticache"

  validation {
    condition     = contains(["elasticache", "memorydb"], var.redis_engine)
    error_message = "redis_engine is elasticache or memorydb."
  }
}

variable "redis_node_type" {
  description = "cache.… for ElastiCache, db.… for MemoryDB."
  type        = string
  default     = "cache.t4g.micro"

  validation {
    condition     = startswith(var.redis_node_type, var.redis_engine == "memorydb" ? "db." : "cache.")
    error_message = "redis_node_type begins with cache. for elasticache and with db. for memorydb."
  }
}

variable "redis_shards" {
  description = "Primaries of ElastiCache, 1 to 16. From 2 on it is a cluster; the number of a running Redis can grow, but not from 1."
  type        = number
  default     = 1

  validation {
    condition     = var.redis_shards >= 1 && var.redis_shards <= 16 && floor(var.redis_shards) == var.redis_shards
    error_message = "redis_shards must be 1 to 16."
  }

  validation {
    condition     = var.redis_shards == 1 || var.redis_engine == "elasticache"
    error_message = "redis_shards above 1 needs elasticache: MemoryDB has one shard here."
  }
}

variable "redis_replicas" {
  description = "Replicas of ElastiCache in other zones, 0 to 5, of each shard. Not used by MemoryDB."
  type        = number
  default     = 0

  validation {
    condition     = var.redis_replicas >= 0 && var.redis_replicas <= 5
    error_message = "redis_replicas must be 0 to 5."
  }
}

variable "bid_ack" {
  description = "What a 201 has survived: redis, replica or log. docs/operations.md explains them."
  type        = string
  default     = "log"

  validation {
    condition     = contains(["redis", "replica", "log"], var.bid_ack)
    error_message = "bid_ack is redis, replica or log."
  }

  validation {
    condition     = var.bid_ack != "replica" || (var.redis_engine == "elasticache" && var.redis_replicas >= 1)
    error_message = "bid_ack = replica needs elasticache with at least one replica; nothing else answers WAIT."
  }
}

variable "snapshot_days" {
  description = "Days to keep daily snapshots of Redis; 0 for none."
  type        = number
  default     = 0

  validation {
    condition     = var.snapshot_days >= 0 && var.snapshot_days <= 35
    error_message = "snapshot_days must be 0 to 35."
  }
}

variable "postgres_instance_class" {
  description = "Size of PostgreSQL."
  type        = string
  default     = "db.t4g.micro"

  validation {
    condition     = startswith(var.postgres_instance_class, "db.")
    error_message = "postgres_instance_class begins with db."
  }
}

variable "postgres_storage_gb" {
  description = "Its disk at the start, at least 20. A million bids take about a gigabyte."
  type        = number
  default     = 20

  validation {
    condition     = var.postgres_storage_gb >= 20
    error_message = "postgres_storage_gb is at least 20."
  }
}

variable "postgres_storage_gb_max" {
  description = "Up to which the disk may grow by itself."
  type        = number
  default     = 50

  validation {
    condition     = var.postgres_storage_gb_max > var.postgres_storage_gb
    error_message = "postgres_storage_gb_max must be more than postgres_storage_gb."
  }
}

variable "postgres_backup_days" {
  description = "Days for which any moment can be restored, 1 to 35."
  type        = number
  default     = 1

  validation {
    condition     = var.postgres_backup_days >= 1 && var.postgres_backup_days <= 35
    error_message = "postgres_backup_days must be 1 to 35."
  }
}

variable "postgres_rotation_days" {
  description = "Days after which AWS changes its password by itself, 1 to 1000. Tasks have to be restarted then."
  type        = number
  default     = 365

  validation {
    condition     = var.postgres_rotation_days >= 1 && var.postgres_rotation_days <= 1000
    error_message = "postgres_rotation_days must be 1 to 1000."
  }
}

variable "nats_servers" {
  description = "1 or 3."
  type        = number
  default     = 1

  validation {
    condition     = contains([1, 3], var.nats_servers)
    error_message = "nats_servers is 1 or 3."
  }
}

variable "nats_cpu" {
  description = "CPU units per server."
  type        = number
  default     = 256
}

variable "nats_memory" {
  description = "Memory per server in MiB."
  type        = number
  default     = 512
}

variable "nats_keep_disks" {
  description = "Whether NATS' disks are on EFS and stay when tasks go; else each is its task's own."
  type        = bool
  default     = false
}

variable "nats_storage_gib" {
  description = "Own disk of each server's task, 21 to 200 GiB; null for the 20 that cost nothing."
  type        = number
  default     = null

  validation {
    condition     = var.nats_storage_gib == null ? true : var.nats_storage_gib >= 21 && var.nats_storage_gib <= 200
    error_message = "nats_storage_gib is 21 to 200, or null."
  }
}

variable "open_catalogue" {
  description = "Whether the first GET or bid on an unknown id opens an item. For load runs."
  type        = bool
  default     = false
}

variable "feed_origins" {
  description = "Origins of other pages that may use the feed, such as https://www.example.com."
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.feed_origins, "*")
    error_message = "Name the origins; * would let every page in."
  }
}

variable "gateway_settings" {
  description = "More settings of the gateway, from docs/configuration.md. Never secrets."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, value in var.gateway_settings : !can(regex("(PASSWORD|SECRET|TOKEN)(_ALSO)?$", upper(name))) && !can(regex("://[^/@[:space:]]*:[^/@[:space:]]+@", value))])
    error_message = "gateway_settings holds a secret, or a URL with a password. Secrets go by reference: docs/deploy-aws.md."
  }
}

variable "broadcaster_settings" {
  description = "More settings of the broadcaster."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, value in var.broadcaster_settings : !can(regex("(PASSWORD|SECRET|TOKEN)(_ALSO)?$", upper(name))) && !can(regex("://[^/@[:space:]]*:[^/@[:space:]]+@", value))])
    error_message = "broadcaster_settings holds a secret, or a URL with a password. Secrets go by reference: docs/deploy-aws.md."
  }
}

variable "archiver_settings" {
  description = "More settings of the archiver."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, value in var.archiver_settings : !can(regex("(PASSWORD|SECRET|TOKEN)(_ALSO)?$", upper(name))) && !can(regex("://[^/@[:space:]]*:[^/@[:space:]]+@", value))])
    error_message = "archiver_settings holds a secret, or a URL with a password. Secrets go by reference: docs/deploy-aws.md."
  }
}

variable "log_level" {
  description = "DEBUG, INFO, WARNING or ERROR."
  type        = string
  default     = "INFO"

  validation {
    condition     = contains(["DEBUG", "INFO", "WARNING", "ERROR"], var.log_level)
    error_message = "log_level is DEBUG, INFO, WARNING or ERROR."
  }
}

variable "enable_exec" {
  description = "Whether `aws ecs execute-command` works. One endpoint more."
  type        = bool
  default     = false
}

variable "container_insights" {
  description = "enabled, enhanced or disabled."
  type        = string
  default     = "enabled"

  validation {
    condition     = contains(["enabled", "enhanced", "disabled"], var.container_insights)
    error_message = "container_insights is enabled, enhanced or disabled."
  }
}

variable "log_retention_days" {
  description = "Days to keep logs."
  type        = number
  default     = 14

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_retention_days)
    error_message = "CloudWatch takes 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545 or 731 days."
  }
}

variable "flow_logs" {
  description = "Whether rejected traffic of the network is recorded."
  type        = bool
  default     = false
}

variable "object_lock_days" {
  description = "Days in which nobody may delete an export; 0 for no lock. It cannot be changed from or to 0 later."
  type        = number
  default     = 0

  validation {
    condition     = var.object_lock_days >= 0
    error_message = "object_lock_days is not negative."
  }
}

variable "alarm_emails" {
  description = "Who is told of alarms and of the budget."
  type        = list(string)

  validation {
    condition     = alltrue([for each in var.alarm_emails : can(regex("^[^@[:space:]]+@[^@[:space:]]+$", each))])
    error_message = "alarm_emails are mail addresses."
  }

  validation {
    condition     = length(var.alarm_emails) > 0
    error_message = "Somebody has to be told."
  }
}

variable "budget_usd" {
  description = "What a month may cost; a mail comes at 80 % and when 100 % are forecast."
  type        = number
  default     = 180

  validation {
    condition     = var.budget_usd > 0
    error_message = "budget_usd must be more than 0."
  }
}
