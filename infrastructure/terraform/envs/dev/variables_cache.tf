variable "cache_node_enabled" {
  description = "Whether the read cache runs: nodes, front ends, their alarms, and READ_CACHE = cluster for the gateways."
  type        = bool
  default     = false
}

variable "cache_services" {
  description = "Size and number of cache nodes and front ends. target: node, keys asked of it in a minute; front_end, gets in a minute. loads_max: questions to PostgreSQL at a time; each task has two connections more. on_demand_base: with spot, so many tasks are not on Spot."
  type = map(object({
    cpu            = number
    memory         = number
    min            = number
    max            = number
    target         = number
    cpu_percent    = number
    loads_max      = number
    spot           = bool
    on_demand_base = number
  }))
  default = {
    node      = { cpu = 256, memory = 512, min = 3, max = 12, target = 150000, cpu_percent = 60, loads_max = 2, spot = true, on_demand_base = 1 }
    front_end = { cpu = 256, memory = 512, min = 1, max = 2, target = 15000, cpu_percent = 60, loads_max = 2, spot = true, on_demand_base = 0 }
  }

  validation {
    condition     = toset(keys(var.cache_services)) == toset(["node", "front_end"])
    error_message = "cache_services has node and front_end."
  }

  validation {
    condition     = alltrue([for each in values(var.cache_services) : each.min >= 1 && each.min <= each.max && each.target > 0 && each.cpu_percent > 0 && each.loads_max >= 1 && each.on_demand_base >= 0])
    error_message = "min is 1 to max; target, cpu_percent and loads_max are more than 0; on_demand_base is not negative."
  }

  validation {
    condition     = try(var.cache_services["node"].min >= 3 && var.cache_services["node"].max <= 12, false)
    error_message = "There are 3 to 12 nodes."
  }
}

variable "cache_front_end" {
  description = "Where `/api` of the read cache is reached: alb, under the platform's own name, or internal, at cache-front-end.<project>-<environment>.internal:9999 from cache_front_end_clients."
  type        = string
  default     = "alb"

  validation {
    condition     = contains(["alb", "internal"], var.cache_front_end)
    error_message = "cache_front_end is alb or internal."
  }
}

variable "cache_front_end_clients" {
  description = "Security groups in this VPC whose members may ask an internal front end, such as sg-0123456789abcdef0."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for each in var.cache_front_end_clients : can(regex("^sg-[0-9a-f]+$", each))])
    error_message = "cache_front_end_clients are ids of security groups, such as sg-0123456789abcdef0."
  }

  validation {
    condition     = var.cache_front_end == "internal" || length(var.cache_front_end_clients) == 0
    error_message = "cache_front_end_clients are for cache_front_end = internal; behind the balancer, alb_ingress_cidrs say who comes in."
  }
}

variable "cache_limits" {
  description = "Thresholds of the cache's alarms. hit_rate and p99_s count in minutes with at least so many gets; questions: of the cache to PostgreSQL in a minute."
  type = object({
    hit_rate         = number
    hit_rate_minutes = number
    gets             = number
    p99_s            = number
    questions        = number
  })
  default = { hit_rate = 0.85, hit_rate_minutes = 15, gets = 100, p99_s = 0.05, questions = 3000 }

  validation {
    condition     = var.cache_limits.hit_rate > 0 && var.cache_limits.hit_rate < 1 && var.cache_limits.hit_rate_minutes >= 1 && var.cache_limits.hit_rate_minutes <= 1440 && floor(var.cache_limits.hit_rate_minutes) == var.cache_limits.hit_rate_minutes
    error_message = "hit_rate is a share between 0 and 1, and hit_rate_minutes a number of minutes, 1 to 1440."
  }

  validation {
    condition     = var.cache_limits.gets >= 1 && var.cache_limits.p99_s > 0 && var.cache_limits.questions > 0
    error_message = "gets is at least 1; p99_s and questions are more than 0."
  }
}
