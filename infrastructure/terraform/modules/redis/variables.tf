variable "name" {
  description = "Name of the cluster, such as bidding-dev."
  type        = string
}

variable "engine" {
  description = "elasticache or memorydb."
  type        = string

  validation {
    condition     = contains(["elasticache", "memorydb"], var.engine)
    error_message = "engine is elasticache or memorydb."
  }
}

variable "node_type" {
  description = "cache.… for ElastiCache, db.… for MemoryDB."
  type        = string

  validation {
    condition     = startswith(var.node_type, var.engine == "memorydb" ? "db." : "cache.")
    error_message = "node_type begins with cache. for elasticache and with db. for memorydb."
  }
}

variable "shards" {
  description = "Primaries of ElastiCache. 1: no cluster. More: cluster mode, which shares the platform's shards among them. Always 1 for MemoryDB."
  type        = number
  default     = 1

  validation {
    condition     = var.shards >= 1 && var.shards <= 16 && floor(var.shards) == var.shards
    error_message = "shards must be 1 to 16."
  }

  validation {
    condition     = var.shards == 1 || var.engine == "elasticache"
    error_message = "MemoryDB has one shard here."
  }
}

variable "replicas" {
  description = "Replicas of ElastiCache, of each shard, in other zones; 0 for none. Not used by MemoryDB."
  type        = number

  validation {
    condition     = var.replicas >= 0 && var.replicas <= 5
    error_message = "replicas must be 0 to 5."
  }
}

variable "port" {
  description = "Port to listen on."
  type        = number
  default     = 6379
}

variable "subnet_ids" {
  description = "Private subnets in different zones."
  type        = list(string)
}

variable "security_group_id" {
  description = "Security group."
  type        = string
}

variable "kms_key_arn" {
  description = "Key of the data at rest and of the secret."
  type        = string
}

variable "snapshot_days" {
  description = "Days to keep daily snapshots; 0 for none."
  type        = number
}

variable "final_snapshot" {
  description = "Whether a last snapshot is made where the cluster is destroyed after all."
  type        = bool
}

variable "secret_recovery_days" {
  description = "Days in which a deleted secret can be brought back: 0, or 7 to 30."
  type        = number
}

variable "passwords" {
  description = "Passwords of each account: one, or two while one takes the place of the other. 16 to 128 characters."
  type        = map(list(string))

  validation {
    condition     = alltrue([for passwords in var.passwords : length(passwords) >= 1 && length(passwords) <= 2])
    error_message = "An account has one password, or two."
  }
}

variable "former_account" {
  description = "Whether the single account of former versions, which had no account for each service, is still admitted: while tasks run with it."
  type        = bool
}
