variable "prefix" {
  description = "Prefix of all names, such as bidding-dev."
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

variable "cluster_arn" {
  description = "The ECS cluster."
  type        = string
}

variable "cluster_name" {
  description = "Its name."
  type        = string
}

variable "image" {
  description = "Image of NATS with /data, sh, awk, sed and wget; modules/nats/Dockerfile makes it."
  type        = string
}

variable "repository_arn" {
  description = "The ECR repository of the image."
  type        = string
}

variable "servers" {
  description = "1 or 3. Two would be worse than one: both are needed for a majority."
  type        = number

  validation {
    condition     = contains([1, 3], var.servers)
    error_message = "servers is 1 or 3."
  }
}

variable "cpu" {
  description = "CPU units per server."
  type        = number
}

variable "memory" {
  description = "Memory per server in MiB."
  type        = number
}

variable "cpu_architecture" {
  description = "ARM64 or X86_64."
  type        = string
}

variable "keep_disks" {
  description = "Whether the servers' disks are on EFS and stay when tasks go. Without, each is its task's own and goes with it."
  type        = bool
}

variable "disk_security_group_id" {
  description = "Security group of the disks on EFS."
  type        = string
}

variable "ephemeral_storage_gib" {
  description = "Own disk of each server's task, 21 to 200 GiB; null for the 20 that cost nothing. JetStream may fill three fifths of so much, on EFS too."
  type        = number
}

variable "dns_namespace_id" {
  description = "The private namespace of Cloud Map."
  type        = string
}

variable "dns_namespace" {
  description = "Its name."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets, one per zone: each server stays in one."
  type        = list(string)
}

variable "security_group_id" {
  description = "Security group of the servers."
  type        = string
}

variable "enable_exec" {
  description = "Whether `aws ecs execute-command` works."
  type        = bool
}

variable "log_retention_days" {
  description = "Days to keep the logs."
  type        = number
}

variable "kms_key_arn" {
  description = "Key of logs and secret."
  type        = string
}

variable "secret_recovery_days" {
  description = "Days in which a deleted secret can be brought back: 0, or 7 to 30."
  type        = number
}

variable "account_passwords" {
  description = "The passwords of the services' users by their variables, GATEWAY_PASSWORD and so on: references into a secret. Letters and digits only."
  type        = map(string)
}

variable "account_secret_arn" {
  description = "That secret."
  type        = string
}
