# What prod promises, looked at in a whole environment that is made up. Nothing reaches AWS. All that holds by default is in one
# run, because each run makes everything anew.

mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  domain_name       = "auction.example.com"
  hosted_zone_id    = "Z0123456789ABC"
  alb_ingress_cidrs = ["0.0.0.0/0"]
  image_tag         = "3f2a1bc"
  alarm_emails      = ["ops@example.com"]
}

run "promises" {
  # Several zones, and nothing is deleted by accident.
  assert {
    condition     = output.posture.postgres.multi_az && output.posture.redis.multi_az && output.posture.zones >= 2
    error_message = "PostgreSQL and Redis have to be in more than one zone."
  }

  assert {
    condition     = alltrue([for name in ["gateway", "broadcaster", "archiver"] : output.posture.services[name].min_tasks >= 2])
    error_message = "Each service needs two tasks, so that a zone may go."
  }

  assert {
    condition     = length([for name in keys(output.posture.services) : name if startswith(name, "nats-")]) == 3
    error_message = "There have to be three NATS servers."
  }

  assert {
    condition     = length(distinct(flatten([for name, service in output.posture.services : service.subnet_ids if startswith(name, "nats-")]))) == 3
    error_message = "Each NATS server has to be in a subnet of its own, and so in a zone of its own."
  }

  assert {
    condition     = output.posture.alb_protected && output.posture.postgres.deletion_protection
    error_message = "Load balancer and database have to resist deletion."
  }

  assert {
    condition     = output.posture.postgres.managed_password && output.posture.postgres.tls_forced && !output.posture.postgres.public && output.posture.postgres.backup_days >= 7
    error_message = "PostgreSQL needs a managed password, TLS, backups, and no public address."
  }

  assert {
    condition     = output.posture.redis.tls && output.posture.redis.password_required && output.posture.redis.eviction == "noeviction"
    error_message = "Redis needs TLS, a password, and must not evict."
  }

  assert {
    condition     = output.posture.budget_usd > 0
    error_message = "There has to be a budget."
  }

  # Nothing but the load balancer is public.
  assert {
    condition     = length(output.posture.open_groups) > 0 && alltrue([for group in output.posture.open_groups : group == output.posture.alb_group])
    error_message = "Only the load balancer's security group may admit addresses."
  }

  assert {
    condition     = alltrue([for service in output.posture.services : !service.public_ip if service.is_service])
    error_message = "No task may have a public address."
  }

  assert {
    condition     = alltrue([for subnet in output.posture.private_subnets : !contains(output.posture.internet_routes, output.posture.route_tables[subnet])])
    error_message = "No private subnet may have a route to the internet."
  }

  assert {
    condition     = length(output.posture.buckets_reached) == 3 && alltrue([for bucket in output.posture.buckets_reached : strcontains(bucket, "starport-layer-bucket") || startswith(bucket, "arn:aws:s3:::mocked")])
    error_message = "Of S3, tasks may reach the layers of images and the bucket of exports, and nothing else."
  }

  assert {
    condition     = alltrue(flatten([for service in output.posture.services : [for subnet in service.subnet_ids : contains(output.posture.private_subnets, subnet)] if service.is_service]))
    error_message = "Every task has to be in a private subnet."
  }

  # No secret is in the plain environment.
  assert {
    condition = alltrue(flatten([for service in output.posture.services : [
      for setting in service.container.environment : !can(regex("(PASSWORD|SECRET|TOKEN|CREDENTIAL)", setting.name))
    ]]))
    error_message = "A setting whose name is that of a secret is in the plain environment."
  }

  assert {
    condition = alltrue(flatten([for service in output.posture.services : [
      for setting in service.container.environment : !strcontains(setting.value, "made-up-password") && !can(regex("://[^/@\\s]*:[^/@\\s]+@", setting.value))
    ]]))
    error_message = "A password is in the value of a plain setting."
  }

  assert {
    condition = alltrue(flatten([for service in output.posture.services : [
      for secret in service.container.secrets : startswith(secret.valueFrom, "arn:aws:secretsmanager:")
    ]]))
    error_message = "A secret has to be a reference to Secrets Manager."
  }

  assert {
    condition = alltrue([for name in ["gateway", "archiver", "one-shot"] : length(setsubtract(
      ["REDIS_PASSWORD", "NATS_PASSWORD", "POSTGRES_USER", "POSTGRES_PASSWORD"], output.posture.services[name].container.secrets[*].name
    )) == 0])
    error_message = "A service lacks a password."
  }

  # Everything is encrypted.
  assert {
    condition     = output.posture.postgres.encrypted && output.posture.redis.encrypted
    error_message = "Every database has to be encrypted at rest."
  }

  assert {
    condition     = length(output.posture.buckets) == 2 && alltrue([for bucket in output.posture.buckets : contains(["aws:kms", "AES256"], bucket.algorithm)])
    error_message = "Every bucket has to be encrypted."
  }

  assert {
    condition     = alltrue([for bucket in output.posture.buckets : bucket.closed && bucket.blocks_plain])
    error_message = "Every bucket has to be closed to the public and to plain HTTP."
  }

  assert {
    condition     = alltrue([for service in output.posture.services : service.log_key == output.posture.key_arn])
    error_message = "Every log has to be encrypted with the environment's key."
  }

  # Containers are locked down.
  assert {
    condition     = alltrue([for service in output.posture.services : service.container.readonlyRootFilesystem])
    error_message = "Root file systems have to be read-only."
  }

  assert {
    condition     = alltrue([for service in output.posture.services : service.container.linuxParameters.capabilities.drop == ["ALL"]])
    error_message = "No container needs a capability."
  }

  assert {
    condition     = alltrue([for service in output.posture.services : try(service.container.user, "image") != "root" && try(service.container.user, "image") != "0"])
    error_message = "No container runs as root."
  }

  assert {
    condition     = alltrue(flatten([for service in output.posture.services : [for right in service.task_rights : !endswith(right, "*")]]))
    error_message = "Rights are named one by one."
  }

  assert {
    condition     = alltrue([for service in output.posture.services : service.circuit_breaker[0].enable && service.circuit_breaker[0].rollback if service.is_service])
    error_message = "A deployment that does not come up has to be rolled back."
  }

  assert {
    condition     = alltrue([for name in ["gateway", "broadcaster", "archiver"] : output.posture.services[name].container.healthCheck.command[1] == "python"])
    error_message = "The health check is Python's: there is no curl in the image."
  }

  assert {
    condition     = alltrue([for name in ["gateway", "broadcaster", "archiver"] : output.posture.services[name].container.stopTimeout > 20])
    error_message = "Services drain for 20 s; SIGKILL must come later."
  }

  # Operators' paths are guarded, and addresses are counted.
  assert {
    condition     = [for rule in output.posture.firewall_rules : rule.Name] == ["operators-only", "operators-create", "requests-per-address", "known-bad-inputs"]
    error_message = "The firewall lacks a rule, or asks in another order."
  }

  assert {
    condition = alltrue([for path in ["/metrics", "/api/v1/items/a-1/cancel", "/api/v1/items/a_b/bids/x@y/void"] :
      can(regex(output.posture.firewall_rules[0].Statement.AndStatement.Statements[1].RegexMatchStatement.RegexString, path))
    ]) && !can(regex(output.posture.firewall_rules[0].Statement.AndStatement.Statements[1].RegexMatchStatement.RegexString, "/api/v1/items/a-1/bid"))
    error_message = "The operators' paths have to be guarded, and that of bids must not be."
  }

  # Somebody is told.
  assert {
    condition = length(setsubtract(
      [for each in ["gateway-5xx", "gateway-p99", "outbox", "consumer-lag", "dead-letters", "shards-lost", "items-lost", "postgres-cpu", "postgres-storage", "redis-memory-bidding-prod-001"] : "bidding-prod-${each}"],
      output.posture.alarms
    )) == 0
    error_message = "An alarm is missing."
  }
}

run "memorydb_may_acknowledge_after_the_commit" {
  variables {
    redis_engine    = "memorydb"
    redis_node_type = "db.r7g.large"
    bid_ack         = "redis"
  }

  assert {
    condition     = output.posture.redis.engine == "memorydb" && output.posture.redis.encrypted && output.posture.redis.tls && output.posture.redis.password_required
    error_message = "MemoryDB needs encryption, TLS and a password too."
  }

  assert {
    condition     = contains([for each in output.posture.services["gateway"].container.environment : "${each.name}=${each.value}"], "BID_ACK=redis")
    error_message = "The gateway has to be told."
  }
}

run "elasticache_may_not" {
  command = plan

  variables {
    redis_engine = "elasticache"
    bid_ack      = "redis"
  }

  expect_failures = [var.bid_ack]
}

run "replicas_are_needed_to_wait_for_them" {
  command = plan

  variables {
    redis_engine    = "memorydb"
    redis_node_type = "db.r7g.large"
    bid_ack         = "replica"
  }

  expect_failures = [var.bid_ack]
}

run "a_budget_is_positive" {
  command = plan

  variables {
    budget_usd = 0
  }

  expect_failures = [var.budget_usd]
}

run "redis_is_never_alone" {
  command = plan

  variables {
    redis_replicas = 0
  }

  expect_failures = [var.redis_replicas]
}

run "nats_is_three" {
  command = plan

  variables {
    nats_servers = 1
  }

  expect_failures = [var.nats_servers]
}

run "a_tag_that_moves_is_refused" {
  command = plan

  variables {
    image_tag = "latest"
  }

  expect_failures = [var.image_tag]
}

run "operators_are_not_everybody" {
  command = plan

  variables {
    operator_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.operator_cidrs]
}

# The module itself refuses what looks like a secret, whoever calls it.
run "a_secret_among_the_settings_is_refused" {
  command = plan

  variables {
    gateway_settings = { ALIAS_SECRET = "in plain sight" }
  }

  expect_failures = [var.gateway_settings]
}
