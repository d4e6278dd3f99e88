# What dev/ and prod/ choose. They have the defaults and the conditions; the ones that hold for both are in both.

variable "environment" {
  description = "dev or prod."
  type        = string

  validation {
    condition     = contains(["dev", "prod"], var.environment)
    error_message = "environment is dev or prod."
  }
}

variable "postgres_multi_az" {
  description = "Whether PostgreSQL has a standby in another zone."
  type        = bool
}

variable "protect" {
  description = "Whether load balancer, database, buckets and secrets resist being destroyed."
  type        = bool
}

variable "region" {
  description = "Region of everything."
  type        = string
}

variable "project" {
  description = "Prefix of names, before the environment; the repositories of bootstrap/ carry it too."
  type        = string
}

variable "domain_name" {
  description = "Name under which API, pages and feed are reached, such as auction.example.com."
  type        = string
}

variable "certificate_arn" {
  description = "A certificate of ACM for it, in this region; null to order one, which needs hosted_zone_id."
  type        = string
}

variable "hosted_zone_id" {
  description = "The domain's zone in Route 53, such as Z0123456789ABC; null where the zone is elsewhere."
  type        = string
}

variable "alb_ingress_cidrs" {
  description = "IPv4 networks that may reach the platform at all. 0.0.0.0/0 is everybody; with auth_mode = open the API does not ask who is calling."
  type        = list(string)
}

variable "operator_cidrs" {
  description = "IPv4 networks that may create, pause, resume, extend, cancel and void, and read /metrics; empty for none."
  type        = list(string)
}

variable "requests_per_address" {
  description = "Requests of one address in a minute; past it the firewall answers 403. A load run from one machine needs more."
  type        = number
}

variable "proxy_cidrs" {
  description = "IPv4 networks of the site or CDN in front, whose requests are those of many people; empty where browsers come by themselves. It has to write X-Forwarded-For itself."
  type        = list(string)
}

variable "requests_per_proxy" {
  description = "Requests of one address of proxy_cidrs in a minute, all people together."
  type        = number
}

variable "auth_mode" {
  description = "open: whoever reaches it may do anything, as anybody. jwt: a token says who calls. docs/security.md."
  type        = string
}

variable "auth_issuer" {
  description = "With jwt: what `iss` of a token must be."
  type        = string
}

variable "auth_audience" {
  description = "With jwt: what `aud` of a token must be or contain."
  type        = string
}

variable "auth_jwks" {
  description = "With jwt: the issuer's public keys, as JSON; null for a secret (HS256) that Secrets Manager makes."
  type        = string
}

variable "auth_leeway_s" {
  description = "With jwt: by how many seconds the issuer's clock may differ."
  type        = number
}

variable "api_keys" {
  description = "With jwt: whether services may get tokens for API keys."
  type        = bool
}

variable "auth_signing_key_arn" {
  description = "With api_keys and auth_jwks: the secret whose text is the private key (P-256, PEM) that signs those tokens; null with HS256."
  type        = string
}

variable "secrets_since" {
  description = "Own secrets that are being replaced, and the instant at which the new one takes over: application, signing, api_keys."
  type        = map(string)
}

variable "redis_two_passwords" {
  description = "Whether Redis takes the passwords of before too: while services change over to new ones."
  type        = bool
}

variable "redis_former_account" {
  description = "Whether Redis still admits the single account of former versions, which had no account for each service."
  type        = bool
}

variable "postgres_ca" {
  description = "Certificates in PEM of the authority that PostgreSQL's certificate has to come from; null to believe any."
  type        = string
}

variable "collector_image_tag" {
  description = "Tag of the copy of the OpenTelemetry collector's image in ECR; null for no collector."
  type        = string
}

variable "known_ends" {
  description = "Ends of auctions that are known before, by name: at which time (UTC, 2026-12-01T20:00:00Z), the least number of tasks by service, and how long before and after."
  type = map(object({
    at             = string
    tasks          = map(number)
    minutes_before = number
    minutes_after  = number
  }))
}

variable "image_tag" {
  description = "Tag of the platform's image in ECR. Tags are not moved: use the commit."
  type        = string
}

variable "nats_image_tag" {
  description = "Tag of the image of NATS in ECR."
  type        = string
}

variable "cpu_architecture" {
  description = "ARM64, which is a fifth cheaper, or X86_64. The images have to be built for it."
  type        = string
}

variable "cidr" {
  description = "Addresses of the VPC, a /16."
  type        = string
}

variable "zones" {
  description = "Letters of the availability zones, two or three; pinned, so that a zone that AWS opens moves nothing. Three NATS servers want three: with two, one zone has the majority."
  type        = list(string)
}

variable "endpoint_zones" {
  description = "Zones with interface endpoints of their own; each costs as much again."
  type        = number
}

variable "services" {
  description = "Size and number of tasks. target: gateway, requests per minute and task; broadcaster, connections per task; archiver, messages behind."
  type = map(object({
    cpu         = number
    memory      = number
    min         = number
    max         = number
    target      = number
    cpu_percent = optional(number, 60)
    spot        = bool
  }))
}

variable "redis_engine" {
  description = "elasticache, or memorydb, which is durable."
  type        = string
}

variable "redis_node_type" {
  description = "cache.… for ElastiCache, db.… for MemoryDB."
  type        = string
}

variable "redis_shards" {
  description = "Primaries of ElastiCache, 1 to 16; from 2 on in cluster mode."
  type        = number
}

variable "redis_replicas" {
  description = "Replicas of ElastiCache in other zones, 0 to 5, of each shard. Not used by MemoryDB."
  type        = number
}

variable "bid_ack" {
  description = "What a 201 has survived: redis, replica or log. docs/operations.md explains them."
  type        = string
}

variable "snapshot_days" {
  description = "Days to keep daily snapshots of Redis; 0 for none."
  type        = number
}

variable "postgres_instance_class" {
  description = "Size of PostgreSQL."
  type        = string
}

variable "postgres_storage_gb" {
  description = "Its disk at the start, at least 20. A million bids take about a gigabyte."
  type        = number
}

variable "postgres_storage_gb_max" {
  description = "Up to which the disk may grow by itself."
  type        = number
}

variable "postgres_backup_days" {
  description = "Days for which any moment can be restored, 1 to 35."
  type        = number
}

variable "postgres_rotation_days" {
  description = "Days after which AWS changes its password by itself, 1 to 1000. Tasks have to be restarted then."
  type        = number
}

variable "nats_servers" {
  description = "1 or 3."
  type        = number
}

variable "nats_cpu" {
  description = "CPU units per server."
  type        = number
}

variable "nats_memory" {
  description = "Memory per server in MiB."
  type        = number
}

variable "nats_keep_disks" {
  description = "Whether NATS' disks are on EFS and stay when tasks go; else each is its task's own."
  type        = bool
}

variable "nats_storage_gib" {
  description = "Own disk of each server's task, 21 to 200 GiB; null for the 20 that cost nothing."
  type        = number
}

variable "cache_node_enabled" {
  description = "Whether the read cache runs: nodes, front ends, their alarms, and READ_CACHE = cluster for the gateways."
  type        = bool
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
}

variable "cache_front_end" {
  description = "Where `/api` of the read cache is reached: alb, under the platform's own name, or internal, at cache-front-end.<project>-<environment>.internal:9999 from cache_front_end_clients."
  type        = string
}

variable "cache_front_end_clients" {
  description = "Security groups in this VPC whose members may ask an internal front end, such as sg-0123456789abcdef0."
  type        = list(string)
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
}

variable "open_catalogue" {
  description = "Whether the first GET or bid on an unknown id opens an item. For load runs."
  type        = bool
}

variable "feed_origins" {
  description = "Origins of other pages that may use the feed, such as https://www.example.com."
  type        = list(string)
}

variable "gateway_settings" {
  description = "More settings of the gateway, from docs/configuration.md. Never secrets."
  type        = map(string)
}

variable "broadcaster_settings" {
  description = "More settings of the broadcaster."
  type        = map(string)
}

variable "archiver_settings" {
  description = "More settings of the archiver."
  type        = map(string)
}

variable "log_level" {
  description = "DEBUG, INFO, WARNING or ERROR."
  type        = string
}

variable "enable_exec" {
  description = "Whether `aws ecs execute-command` works. One endpoint more."
  type        = bool
}

variable "container_insights" {
  description = "enabled, enhanced or disabled."
  type        = string
}

variable "log_retention_days" {
  description = "Days to keep logs."
  type        = number
}

variable "flow_logs" {
  description = "Whether rejected traffic of the network is recorded."
  type        = bool
}

variable "object_lock_days" {
  description = "Days in which nobody may delete an export; 0 for no lock. It cannot be changed from or to 0 later."
  type        = number
}

variable "alarm_emails" {
  description = "Who is told of alarms and of the budget."
  type        = list(string)
}

variable "budget_usd" {
  description = "What a month may cost; a mail comes at 80 % and when 100 % are forecast."
  type        = number
}
