variable "name" {
  description = "Name of the instance, such as bidding-dev."
  type        = string
}

variable "major_version" {
  description = "Major version of PostgreSQL; minor ones come by themselves."
  type        = string
  default     = "18"
}

variable "instance_class" {
  description = "Size, such as db.t4g.micro."
  type        = string

  validation {
    condition     = startswith(var.instance_class, "db.")
    error_message = "instance_class begins with db."
  }
}

variable "multi_az" {
  description = "Whether a standby in another zone follows every commit."
  type        = bool
}

variable "storage_gb" {
  description = "Disk at the start, at least 20 GB. A million bids take about one."
  type        = number

  validation {
    condition     = var.storage_gb >= 20
    error_message = "gp3 begins at 20 GB."
  }
}

variable "storage_gb_max" {
  description = "Up to which RDS may enlarge the disk by itself."
  type        = number

  validation {
    condition     = var.storage_gb_max > var.storage_gb
    error_message = "storage_gb_max must be more than storage_gb."
  }
}

variable "backup_days" {
  description = "Days for which any moment can be restored, 1 to 35."
  type        = number

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "backup_days must be 1 to 35."
  }
}

variable "rotation_days" {
  description = "Days between two passwords, 1 to 1000."
  type        = number

  validation {
    condition     = var.rotation_days >= 1 && var.rotation_days <= 1000
    error_message = "rotation_days must be 1 to 1000."
  }
}

variable "deletion_protection" {
  description = "Whether the instance refuses to be deleted, and leaves a snapshot when it may be."
  type        = bool
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
  description = "Key of disk, backups, performance data and secret."
  type        = string
}

variable "log_retention_days" {
  description = "Days to keep the logs."
  type        = number
}
