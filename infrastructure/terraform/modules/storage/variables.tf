variable "name" {
  description = "Prefix of all names, such as bidding-dev."
  type        = string
}

variable "account_id" {
  description = "The account."
  type        = string
}

variable "kms_key_arn" {
  description = "Key of the exports."
  type        = string
}

variable "log_days" {
  description = "Days to keep access and flow logs."
  type        = number
}

variable "object_lock_days" {
  description = "Days in which nobody may delete an export; 0 for no lock. A bucket keeps its first answer."
  type        = number

  validation {
    condition     = var.object_lock_days >= 0 && var.object_lock_days <= 36500
    error_message = "object_lock_days must be 0 to 36500."
  }
}

variable "force_destroy" {
  description = "Whether destroying the environment deletes buckets that are not empty."
  type        = bool
}
