variable "prefix" {
  description = "Prefix of all names, such as bidding-dev."
  type        = string
}

variable "name" {
  description = "Name of the service, its container and its log streams, such as gateway."
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
  description = "The cluster."
  type        = string
}

variable "cluster_name" {
  description = "Its name."
  type        = string
}

variable "image" {
  description = "Image with tag or digest."
  type        = string
}

variable "repository_arn" {
  description = "The ECR repository of the image."
  type        = string
}

variable "command" {
  description = "Arguments of the image."
  type        = list(string)
}

variable "entry_point" {
  description = "Replaces the image's entry point; null keeps it."
  type        = list(string)
  default     = null
}

variable "user" {
  description = "User and group to run as; null keeps the image's, which is not root."
  type        = string
  default     = null
}

variable "cpu" {
  description = "CPU units; 1024 is one vCPU."
  type        = number

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.cpu)
    error_message = "Fargate offers 256, 512, 1024, 2048, 4096, 8192 and 16384 CPU units."
  }
}

variable "memory" {
  description = "Memory in MiB; Fargate allows two to eight times the CPU units, and 512 with 256."
  type        = number

  validation {
    condition     = var.memory >= var.cpu * 2 && var.memory <= var.cpu * 8
    error_message = "memory must be two to eight times the CPU units."
  }
}

variable "cpu_architecture" {
  description = "ARM64 or X86_64; the image has to be built for it."
  type        = string

  validation {
    condition     = contains(["ARM64", "X86_64"], var.cpu_architecture)
    error_message = "cpu_architecture is ARM64 or X86_64."
  }
}

variable "ports" {
  description = "Ports of the container; the first is the balancer's."
  type        = list(number)
  default     = []
}

variable "environment" {
  description = "Settings in plain text. Never a secret: names that look like one, and URLs with a password, are refused."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.environment) : !can(regex("(PASSWORD|SECRET|TOKEN|CREDENTIAL|PRIVATE_KEY)(_ALSO)?$", upper(name)))])
    error_message = "A setting whose name ends like a secret's belongs into `secrets`."
  }

  validation {
    condition     = alltrue([for value in values(var.environment) : !can(regex("://[^/@[:space:]]*:[^/@[:space:]]+@", value))])
    error_message = "A URL with a password belongs into `secrets`."
  }
}

variable "secrets" {
  description = "Settings by reference: environment name to ARN of the secret, with an optional :key:: of its JSON."
  type        = map(string)
}

variable "secret_arns" {
  description = "Those secrets, without keys, for the execution role."
  type        = list(string)
}

variable "task_statements" {
  description = "What the service itself may do: IAM statements, each as JSON."
  type        = list(string)
  default     = []
}

variable "scratch_volumes" {
  description = "Writable folders, by volume name; their content goes with the task."
  type        = map(string)
  default     = {}
}

variable "kept_volumes" {
  description = "Disks on EFS that outlive the task, by volume name: mounted at `path` through an access point, encrypted on the way, with the task's role."
  type = map(object({
    path            = string
    file_system_id  = string
    access_point_id = string
  }))
  default = {}
}

variable "companions" {
  description = "Containers that run beside the service in each task, each as JSON; with the task's network, so that they reach its ports at 127.0.0.1."
  type        = list(string)
  default     = []
}

variable "companion_repository_arns" {
  description = "ECR repositories of their images."
  type        = list(string)
  default     = []
}

variable "rollback_alarms" {
  description = "Names of alarms that take a deployment back; they exist before the service."
  type        = list(string)
  default     = []
}

variable "ephemeral_storage_gib" {
  description = "Disk of the task, 21 to 200 GiB; null for the 20 that cost nothing."
  type        = number
  default     = null
}

variable "health_check" {
  description = "The container's health check as ECS takes it; null for none."
  type = object({
    command     = list(string)
    interval    = number
    timeout     = number
    retries     = number
    startPeriod = number
  })
  default = null
}

variable "stop_timeout_s" {
  description = "Seconds between SIGTERM and SIGKILL, at most 120."
  type        = number

  validation {
    condition     = var.stop_timeout_s >= 2 && var.stop_timeout_s <= 120
    error_message = "stop_timeout_s must be 2 to 120."
  }
}

variable "open_files" {
  description = "Bound of open files; each connection takes one."
  type        = number
  default     = 65536
}

variable "subnet_ids" {
  description = "Private subnets."
  type        = list(string)
}

variable "security_group_id" {
  description = "Security group."
  type        = string
}

variable "enable_exec" {
  description = "Whether `aws ecs execute-command` works. It needs the endpoint ssmmessages."
  type        = bool
}

variable "log_retention_days" {
  description = "Days to keep the log."
  type        = number
}

variable "kms_key_arn" {
  description = "Key of log and secrets."
  type        = string
}

variable "service" {
  description = "How to run it as a service; null for a task definition alone. `replace_in_place` stops the old task first. With `spot`, so many tasks as `on_demand_base` says are not on Spot."
  type = object({
    desired          = number
    spot             = optional(bool, false)
    on_demand_base   = optional(number, 0)
    target_group_arn = optional(string)
    grace_s          = optional(number, 120)
    registry_arn     = optional(string)
    replace_in_place = optional(bool, false)
  })
  default = null

  validation {
    condition     = var.service == null ? true : var.service.on_demand_base >= 0 && floor(var.service.on_demand_base) == var.service.on_demand_base
    error_message = "on_demand_base is a number of tasks, 0 or more."
  }
}

variable "known_ends" {
  description = "Ends of auctions that are known before, by name: from `begins` to `ends` (UTC, as 2026-12-01T19:45:00Z) there are at least `min` tasks."
  type = map(object({
    begins = string
    ends   = string
    min    = number
  }))
  default = {}
}

variable "scaling" {
  description = "Bounds and targets of the autoscaler; null for a fixed number. Either `request_count_label` or `metric`; with `cpu_percent` the CPU counts too, and the larger number of tasks holds."
  type = object({
    min                 = number
    max                 = number
    target              = number
    cpu_percent         = optional(number)
    request_count_label = optional(string)
    metric = optional(object({
      namespace  = string
      name       = string
      statistic  = string
      dimensions = map(string)
    }))
  })
  default = null

  validation {
    condition     = var.scaling == null ? true : (var.scaling.request_count_label == null) != (var.scaling.metric == null)
    error_message = "Give exactly one of request_count_label and metric."
  }

  validation {
    condition     = var.scaling == null ? true : var.scaling.min >= 1 && var.scaling.min <= var.scaling.max
    error_message = "min must be at least 1 and at most max."
  }

  validation {
    condition     = try(var.scaling.cpu_percent, null) == null ? true : var.scaling.cpu_percent > 0 && var.scaling.cpu_percent <= 90
    error_message = "cpu_percent is more than 0 and at most 90: above that no task is free while another starts."
  }
}
