# How many tasks of dev there are, how large, and what runs beside them.

variable "services" {
  description = "Size and number of tasks. target: gateway, requests per minute and task; broadcaster, connections per task; archiver, messages behind. cpu_percent: more tasks above it, whatever the target says."
  type = map(object({
    cpu         = number
    memory      = number
    min         = number
    max         = number
    target      = number
    cpu_percent = optional(number, 60)
    spot        = bool
  }))
  default = {
    gateway     = { cpu = 256, memory = 512, min = 1, max = 2, target = 6000, spot = false }
    broadcaster = { cpu = 256, memory = 512, min = 1, max = 2, target = 2000, spot = true }
    archiver    = { cpu = 256, memory = 512, min = 1, max = 1, target = 20000, spot = true }
  }

  validation {
    condition     = toset(keys(var.services)) == toset(["gateway", "broadcaster", "archiver"])
    error_message = "services has gateway, broadcaster and archiver."
  }

  validation {
    condition     = alltrue([for each in values(var.services) : each.min >= 1 && each.min <= each.max && each.max <= 50 && each.target > 0 && each.cpu_percent > 0 && each.cpu_percent <= 90])
    error_message = "min is 1 to max, max at most 50, target more than 0, and cpu_percent 1 to 90."
  }
}

variable "collector_image_tag" {
  description = "Tag of the copy of the OpenTelemetry collector's image in ECR; null for no collector."
  type        = string
  default     = "v0.43.1"
}

variable "known_ends" {
  description = "Ends of auctions that are known before, by name: at which time (UTC, 2026-12-01T20:00:00Z), the least number of tasks by service (gateway, broadcaster, archiver), and how long before and after."
  type = map(object({
    at             = string
    tasks          = map(number)
    minutes_before = optional(number, 15)
    minutes_after  = optional(number, 15)
  }))
  default = {}

  validation {
    condition     = alltrue([for name, end in var.known_ends : can(regex("^[a-z0-9-]{1,40}$", name)) && can(timeadd(end.at, "0s"))])
    error_message = "known_ends have names of a-z, 0-9 and -, and times such as 2026-12-01T20:00:00Z."
  }

  validation {
    condition     = alltrue([for end in values(var.known_ends) : alltrue([for service, tasks in end.tasks : contains(["gateway", "broadcaster", "archiver"], service) && tasks >= 1 && tasks <= try(var.services[service].max, 0)])])
    error_message = "tasks of known_ends are of gateway, broadcaster and archiver, 1 to the service's max."
  }

  # The end of one would take away the tasks of the other.
  validation {
    condition = alltrue(flatten([for a, one in var.known_ends : [for b, other in var.known_ends :
      try(timecmp(timeadd(one.at, "${one.minutes_after}m"), timeadd(other.at, "-${other.minutes_before}m")) < 0 || timecmp(timeadd(other.at, "${other.minutes_after}m"), timeadd(one.at, "-${one.minutes_before}m")) < 0, true)
      if a != b && length(setintersection(keys(one.tasks), keys(other.tasks))) > 0
    ]]))
    error_message = "Two known_ends of one service overlap: make one of them, with the larger number of tasks."
  }

  validation {
    condition     = alltrue([for end in values(var.known_ends) : end.minutes_before >= 1 && end.minutes_before <= 1440 && end.minutes_after >= 1 && end.minutes_after <= 1440])
    error_message = "minutes_before and minutes_after are 1 to 1440."
  }
}
