# What prod promises, looked at in a whole environment that is made up. Nothing reaches AWS. All that holds by default is in one
# run, because each run makes everything anew.

mock_provider "aws" {
  source = "../../tests/mocks"
}

# What is made here has to go again, and the guard would not let it: guard.tftest.hcl looks at that.
override_module {
  target  = module.environment.module.guard
  outputs = { protected = [] }
}

variables {
  domain_name       = "auction.example.com"
  hosted_zone_id    = "Z0123456789ABC"
  alb_ingress_cidrs = ["198.51.100.0/24"]
  proxy_cidrs       = ["198.51.100.0/24"]
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
    condition     = output.posture.redis.final_snapshot == "bidding-prod-final"
    error_message = "Redis leaves a last snapshot."
  }

  assert {
    condition     = !output.posture.redis.upgrades_itself
    error_message = "A version that is named here must not be changed elsewhere."
  }

  # AWS may retire the tasks of all three servers at once: their disks stay, each in the zone of its server.
  assert {
    condition     = alltrue([for name in ["nats-0", "nats-1", "nats-2"] : join(" ", output.posture.services[name].kept_disks) == "data" && output.posture.nats_disks[name].encrypted && contains(output.posture.services[name].subnet_ids, output.posture.nats_disks[name].subnet_id)])
    error_message = "Each NATS server needs a disk that stays, encrypted, with its way in where the server is."
  }

  assert {
    condition     = [for rule in output.posture.admitted : rule if strcontains(rule, "-2049")] == ["nats-nats-disk-2049"]
    error_message = "The disks admit NATS and nobody else."
  }

  # One name, one disk: the old server goes before the new one comes, and the next one waits for its health.
  assert {
    condition     = alltrue([for name in ["nats-0", "nats-1", "nats-2"] : output.posture.services[name].in_place && strcontains(output.posture.services[name].container.healthCheck.command[1], "caught-up")])
    error_message = "A NATS server is replaced in place, and is healthy once its streams are current."
  }

  assert {
    condition     = length(output.posture.fixed_names) == 0
    error_message = "A security group with a fixed name could not be replaced before it is destroyed."
  }

  # Deployments: alarms take them back, beside the circuit breaker.
  assert {
    condition = (toset(output.posture.services["gateway"].alarms) == toset([for each in ["gateway-5xx", "gateway-p99", "gateway-unhealthy", "shards-lost", "items-lost"] : "bidding-prod-${each}"])
      && output.posture.services["broadcaster"].alarms == ["bidding-prod-feed-unhealthy"]
    && output.posture.services["archiver"].alarms == ["bidding-prod-dead-letters"])
    error_message = "Alarms have to take a deployment back."
  }

  # Before the first task of the first apply has reported, nothing is missing; and a late figure takes no good version back. One alarm of
  # each service still rings where its figures stop.
  assert {
    condition     = join(" ", output.posture.rings_silent) == "bidding-prod-consumer-lag bidding-prod-feed-capacity bidding-prod-outbox"
    error_message = "Alarms that take deployments back must not ring in silence, and each service needs one that does."
  }

  assert {
    condition     = alltrue([for each in output.posture.services["broadcaster"].container.environment : strcontains(each.value, "198.51.100.0/24") if each.name == "FEED_TRUSTED_PROXIES"])
    error_message = "Viewers behind a site would share the bound of one address."
  }

  # Scaling: by the CPU too, up to 50, and without losing what is under way.
  assert {
    condition     = alltrue([for name in ["gateway", "broadcaster"] : output.posture.services[name].cpu_target == 60 && output.posture.services[name].min_tasks == 2 && output.posture.services[name].max_tasks == 50])
    error_message = "Gateways and broadcasters follow their CPU too, from 2 to 50 tasks."
  }

  assert {
    condition     = output.posture.drains["gateway"] >= 25 && output.posture.services["gateway"].container.stopTimeout > 20 && output.posture.services["broadcaster"].container.stopTimeout > 20
    error_message = "Requests under way are answered before their target leaves, and services may drain before SIGKILL."
  }

  # Something looks at /metrics, and shows what the local dashboard shows.
  assert {
    condition = alltrue([for name in ["gateway", "broadcaster", "archiver"] :
      [for each in output.posture.services[name].companions : each.name] == ["collector"]
      && !output.posture.services[name].companions[0].essential
      && output.posture.services[name].companions[0].restartPolicy.enabled
      && output.posture.services[name].companions[0].readonlyRootFilesystem
      && strcontains(output.posture.collectors[name], "127.0.0.1:${ { gateway = 8080, broadcaster = 8081, archiver = 8082 }[name]}")
    ])
    error_message = "A collector beside each service has to scrape it."
  }

  assert {
    condition     = output.posture.insights == "enabled" && length(setsubtract(["Bids decided", "Bids per round trip to Redis", "Outbox", "Relay", "Viewers", "Decision to frame", "Frames", "Archive", "Commit in PostgreSQL", "Alarms"], output.posture.dashboard)) == 0
    error_message = "Container Insights, and the panels of the local dashboard."
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
    condition = alltrue([for name in ["gateway", "broadcaster", "archiver", "operator"] : length(setsubtract(
      ["REDIS_PASSWORD", "NATS_PASSWORD", "POSTGRES_PASSWORD"], output.posture.services[name].container.secrets[*].name
    )) == 0])
    error_message = "A service lacks a password."
  }

  # Each as itself at Redis, NATS and PostgreSQL; the owner of the tables is there for one command alone.
  assert {
    condition = alltrue([for name in ["gateway", "broadcaster", "archiver", "operator"] : (
      length(setsubtract(["REDIS_USER=${name}", "POSTGRES_USER=${name}", "NATS_USER=${name}"], [for each in output.posture.services[name].container.environment : "${each.name}=${each.value}"])) == 0 &&
      !contains(output.posture.services[name].container.secrets[*].name, "POSTGRES_USER") &&
      alltrue([for each in output.posture.services[name].container.secrets : endswith(each.valueFrom, ":${name}::") if contains(["REDIS_PASSWORD", "POSTGRES_PASSWORD", "NATS_PASSWORD"], each.name)])
    )])
    error_message = "A service logs in as another."
  }

  assert {
    condition = toset(output.posture.services["one-shot"].container.secrets[*].name) == toset(
      ["POSTGRES_USER", "POSTGRES_PASSWORD", "GATEWAY_PASSWORD", "BROADCASTER_PASSWORD", "ARCHIVER_PASSWORD", "CACHE_PASSWORD", "OPERATOR_PASSWORD"]
    ) && !contains(output.posture.services["one-shot"].container.environment[*].name, "REDIS_URL")
    error_message = "migrate owns the tables and makes the logins; it has no business at Redis and NATS."
  }

  assert {
    condition     = toset(output.posture.services["operator"].container.secrets[*].name) == toset(["REDIS_PASSWORD", "NATS_PASSWORD", "POSTGRES_PASSWORD"])
    error_message = "Operators' commands run as the operator, and have nobody else's password."
  }

  # The lists of shared/permissions, as they are written beside the module.
  assert {
    condition     = output.posture.redis.accounts == tomap(jsondecode(file("../../modules/redis/users.json"))) && toset(keys(output.posture.redis.accounts)) == toset(["gateway", "broadcaster", "archiver", "operator"])
    error_message = "Each service may do at Redis what the list says."
  }

  assert {
    condition     = output.posture.redis.nameless == "off resetchannels -@all" && toset(output.posture.redis.members) == toset([for name in ["default", "gateway", "broadcaster", "archiver", "operator"] : "bidding-prod-${name}"])
    error_message = "Whoever gives no name may do nothing, and nobody else is let in."
  }

  assert {
    condition     = output.posture.redis.passwords == { gateway = 1, broadcaster = 1, archiver = 1, operator = 1 }
    error_message = "One password of each holds."
  }

  assert {
    condition     = length([for service in output.posture.services : service if length([for each in concat(service.container.secrets[*].name, service.container.environment[*].name) : each if endswith(each, "_ALSO") || endswith(each, "_SINCE")]) > 0]) == 0
    error_message = "No secret is being replaced."
  }

  assert {
    condition     = !contains(flatten([for service in output.posture.services : service.container.secrets[*].name]), "API_KEY_SECRET")
    error_message = "Without api_keys there are no API keys."
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
    condition     = [for rule in output.posture.firewall_rules : rule.Name] == ["operators-only", "operators-create", "requests-per-address", "known-bad-inputs", "requests-per-client", "requests-per-proxy"]
    error_message = "The firewall lacks a rule, or asks in another order."
  }

  assert {
    condition = alltrue([for path in ["/metrics", "/api/v1/items/a-1/cancel", "/api/v1/items/a_b/bids/x@y/void"] :
      can(regex(output.posture.firewall_rules[0].Statement.AndStatement.Statements[1].RegexMatchStatement.RegexString, path))
    ]) && !can(regex(output.posture.firewall_rules[0].Statement.AndStatement.Statements[1].RegexMatchStatement.RegexString, "/api/v1/items/a-1/bid"))
    error_message = "The operators' paths have to be guarded, and that of bids must not be."
  }

  # Without tokens the firewall alone keeps others from what is not theirs: tests/unit/infrastructure/deploy/test_firewall.py has every path.
  assert {
    condition = (can(regex(output.posture.firewall_rules[0].Statement.AndStatement.Statements[1].RegexMatchStatement.RegexString, "/api/v1/revocations"))
      && can(regex(output.posture.firewall_rules[1].Statement.AndStatement.Statements[1].OrStatement.Statements[0].AndStatement.Statements[1].RegexMatchStatement.RegexString, "/api/v1/items:batch"))
    && can(regex(output.posture.firewall_rules[1].Statement.AndStatement.Statements[1].OrStatement.Statements[1].RegexMatchStatement.RegexString, "PUT")))
    error_message = "Items in groups, rulings and revocations are operators' too."
  }

  # People behind the site are counted one by one; whoever comes by himself is counted by his own address, whatever he writes.
  assert {
    condition = (output.posture.firewall_rules[4].Statement.RateBasedStatement.AggregateKeyType == "FORWARDED_IP"
      && output.posture.firewall_rules[4].Statement.RateBasedStatement.ForwardedIPConfig.HeaderName == "X-Forwarded-For"
      && output.posture.firewall_rules[4].Statement.RateBasedStatement.Limit == 3000
      && output.posture.firewall_rules[4].Statement.RateBasedStatement.ScopeDownStatement == output.posture.firewall_rules[5].Statement.RateBasedStatement.ScopeDownStatement
      && output.posture.firewall_rules[5].Statement.RateBasedStatement.Limit == 600000
      && output.posture.firewall_rules[2].Statement.RateBasedStatement.AggregateKeyType == "IP"
    && output.posture.firewall_rules[2].Statement.RateBasedStatement.ScopeDownStatement.NotStatement.Statement == output.posture.firewall_rules[4].Statement.RateBasedStatement.ScopeDownStatement)
    error_message = "Behind a proxy the client's address counts, and nowhere else."
  }

  # Somebody is told.
  assert {
    condition = length(setsubtract(
      [for each in ["gateway-5xx", "gateway-p99", "outbox", "consumer-lag", "dead-letters", "shards-lost", "items-lost", "postgres-cpu", "postgres-storage", "redis-memory-bidding-prod-001"] : "bidding-prod-${each}"],
      output.posture.alarms
    )) == 0
    error_message = "An alarm is missing."
  }

  # Nothing of the read cache where it is not asked for.
  assert {
    condition     = length([for name in concat(keys(output.posture.services), output.posture.groups, output.posture.alarms, output.posture.admitted) : name if strcontains(name, "cache")]) == 0
    error_message = "Without cache_node_enabled there is no service, group, alarm or rule of the read cache."
  }

  assert {
    condition     = output.posture.cache_alarms == null && length(output.posture.front_end_paths) == 0 && length([for title in output.posture.dashboard : title if startswith(title, "Read cache")]) == 0
    error_message = "Without cache_node_enabled there is neither a path nor a panel of the read cache."
  }

  assert {
    condition     = !contains(output.posture.services["gateway"].container.environment[*].name, "READ_CACHE")
    error_message = "Without nodes the gateway must not look for them."
  }
}

# Browsers come by themselves, so tokens say who they are.
run "everybody_with_tokens" {
  variables {
    alb_ingress_cidrs    = ["0.0.0.0/0"]
    proxy_cidrs          = []
    auth_mode            = "jwt"
    auth_issuer          = "https://login.example.com/"
    auth_audience        = "bidding"
    auth_jwks            = jsonencode({ keys = [{ kty = "OKP", crv = "Ed25519", kid = "1", x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] })
    api_keys             = true
    auth_signing_key_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:signing-AbCdEf"
    postgres_ca          = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    secrets_since        = { application = "2030-01-31T18:00:00Z", api_keys = "2030-01-31T19:00:00Z" }
    known_ends           = { spring-sale = { at = "2097-03-20T19:00:00Z", tasks = { gateway = 10, broadcaster = 20 }, minutes_before = 20 } }
  }

  assert {
    condition     = length(setsubtract(["AUTH_MODE=jwt", "AUTH_ISSUER=https://login.example.com/", "AUTH_AUDIENCE=bidding", "AUTH_LEEWAY_S=30"], [for each in output.posture.services["gateway"].container.environment : "${each.name}=${each.value}"])) == 0
    error_message = "The gateway has to be told."
  }

  assert {
    condition     = contains([for each in output.posture.services["broadcaster"].container.environment : "${each.name}=${each.value}"], "AUTH_MODE=jwt")
    error_message = "Frames would show the ids of bidders."
  }

  assert {
    condition     = contains(output.posture.services["gateway"].container.secrets[*].name, "AUTH_JWKS") && !contains(output.posture.services["gateway"].container.secrets[*].name, "AUTH_HS256_SECRET")
    error_message = "The issuer's keys come from Secrets Manager."
  }

  assert {
    condition = (
      length(setsubtract(["API_KEY_SECRET", "AUTH_SIGNING_KEY"], output.posture.services["gateway"].container.secrets[*].name)) == 0 &&
      contains(output.posture.services["operator"].container.secrets[*].name, "API_KEY_SECRET") &&
      !contains(output.posture.services["one-shot"].container.secrets[*].name, "API_KEY_SECRET") &&
      !contains(output.posture.services["broadcaster"].container.secrets[*].name, "API_KEY_SECRET")
    )
    error_message = "The gateway exchanges API keys, and the command that makes them needs the same secret."
  }

  # Secrets that are being replaced: who has one is told the other one too, and when.
  assert {
    condition = alltrue([for name, settings in {
      gateway     = { ALIAS_SECRET = "18", FEED_TOKEN_SECRET = "18", API_KEY_SECRET = "19" }
      broadcaster = { ALIAS_SECRET = "18", FEED_TOKEN_SECRET = "18" }
      operator    = { API_KEY_SECRET = "19" }
      } : alltrue([for setting, hour in settings : (
        contains([for each in output.posture.services[name].container.environment : "${each.name}=${each.value}"], "${setting}_SINCE=2030-01-31T${hour}:00:00Z") &&
        [for each in output.posture.services[name].container.secrets : endswith(each.valueFrom, ":AWSPREVIOUS:") if each.name == "${setting}_ALSO"] == [true] &&
        [for each in output.posture.services[name].container.secrets : can(regex("::[^:]+$", each.valueFrom)) if each.name == setting] == [true]
      )])
    ]) && !contains(output.posture.services["operator"].container.secrets[*].name, "ALIAS_SECRET_ALSO")
    error_message = "While a secret is replaced, all who have it need both and the instant; its version is named."
  }

  assert {
    condition = alltrue([for name in ["gateway", "broadcaster", "archiver", "one-shot", "operator"] :
      contains(output.posture.services[name].container.environment[*].name, "POSTGRES_CA")
    ])
    error_message = "Everybody who talks to PostgreSQL has to know whom to believe."
  }

  assert {
    condition     = [for rule in output.posture.firewall_rules : rule.Name] == ["operators-only", "operators-create", "requests-per-address", "known-bad-inputs"] && !can(output.posture.firewall_rules[2].Statement.RateBasedStatement.ScopeDownStatement)
    error_message = "Without a proxy every address is counted, and no header is believed."
  }

  assert {
    condition = (output.posture.services["gateway"].planned_ends["spring-sale-begins"] == { schedule = "at(2097-03-20T18:40:00)", min = 10, max = 50 }
      && output.posture.services["gateway"].planned_ends["spring-sale-ends"] == { schedule = "at(2097-03-20T19:15:00)", min = 2, max = 50 }
      && output.posture.services["broadcaster"].planned_ends["spring-sale-begins"].min == 20
    && length(output.posture.services["archiver"].planned_ends) == 0)
    error_message = "Tasks are there before a known end, and go after it."
  }
}

run "a_secret_where_there_are_no_keys" {
  variables {
    auth_mode           = "jwt"
    auth_issuer         = "i"
    auth_audience       = "a"
    collector_image_tag = null
    secrets_since       = { signing = "2030-01-31T18:00:00Z" }
  }

  assert {
    condition     = length(setsubtract(["AUTH_HS256_SECRET", "AUTH_HS256_SECRET_ALSO"], output.posture.services["gateway"].container.secrets[*].name)) == 0
    error_message = "Without keys there is a secret that Secrets Manager makes."
  }

  assert {
    condition     = alltrue([for service in output.posture.services : length(service.companions) == 0]) && !contains(output.posture.dashboard, "Relay") && contains(output.posture.dashboard, "Outbox")
    error_message = "Without a collector there is none, and no panel is empty."
  }
}

run "secrets_that_are_replaced_are_ours_at_an_instant" {
  command = plan

  variables {
    secrets_since = { redis = "tomorrow" }
  }

  expect_failures = [var.secrets_since]
}

run "api_keys_need_a_key_to_sign_with" {
  command = plan

  variables {
    auth_mode     = "jwt"
    auth_issuer   = "i"
    auth_audience = "a"
    auth_jwks     = jsonencode({ keys = [{ kty = "OKP", crv = "Ed25519", kid = "1", x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] })
    api_keys      = true
  }

  expect_failures = [var.api_keys]
}

run "what_everybody_reaches_needs_tokens" {
  command = plan

  variables {
    alb_ingress_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.auth_mode]
}

run "a_private_key_is_refused" {
  command = plan

  variables {
    auth_mode     = "jwt"
    auth_issuer   = "i"
    auth_audience = "a"
    auth_jwks     = "{\"keys\": [{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"d\": \"secret\"}]}"
  }

  expect_failures = [var.auth_jwks]
}

run "a_proxy_is_not_everybody" {
  command = plan

  variables {
    proxy_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.proxy_cidrs]
}

run "disks_of_nats_stay" {
  command = plan

  variables {
    nats_keep_disks = false
  }

  expect_failures = [var.nats_keep_disks]
}

# An apply while tasks are there for an end leaves them; what is past is not asked of AWS, which would refuse it.
run "an_apply_during_a_known_end" {
  command = plan

  variables {
    known_ends = {
      now  = { at = timeadd(timestamp(), "5m"), tasks = { gateway = 10 } }
      past = { at = timeadd(timestamp(), "-2h"), tasks = { gateway = 20, broadcaster = 20 } }
    }
  }

  assert {
    condition     = output.posture.services["gateway"].min_now == 10 && output.posture.services["broadcaster"].min_now == 2
    error_message = "The tasks of an end that is under way have to stay."
  }

  assert {
    condition     = keys(output.posture.services["gateway"].planned_ends) == ["now-ends"] && length(output.posture.services["broadcaster"].planned_ends) == 0
    error_message = "AWS takes no action whose time is past."
  }
}

run "known_ends_stay_below_the_ceiling" {
  command = plan

  variables {
    known_ends = { sale = { at = "2097-03-20T19:00:00Z", tasks = { gateway = 51 } } }
  }

  expect_failures = [var.known_ends]
}

run "known_ends_do_not_overlap" {
  command = plan

  variables {
    known_ends = {
      one = { at = "2097-03-20T19:00:00Z", tasks = { gateway = 10 } }
      two = { at = "2097-03-20T19:20:00Z", tasks = { gateway = 5 } }
    }
  }

  expect_failures = [var.known_ends]
}

# Nodes, front ends, and what watches them.
run "the_read_cache" {
  variables {
    cache_node_enabled = true
  }

  assert {
    condition     = output.posture.services["cache-node"].min_tasks == 3 && output.posture.services["cache-node"].max_tasks == 12 && output.posture.services["cache-front-end"].min_tasks >= 2
    error_message = "There have to be 3 to 12 nodes, and a front end for each zone that may go."
  }

  assert {
    condition     = alltrue([for name in ["cache-node", "cache-front-end"] : output.posture.services[name].cpu_target == 60])
    error_message = "The autoscaler has to look at the CPU."
  }

  assert {
    condition = alltrue([for name in ["cache-node", "cache-front-end"] :
      !output.posture.services[name].public_ip && length(setsubtract(output.posture.services[name].subnet_ids, output.posture.private_subnets)) == 0
    ])
    error_message = "Nodes and front ends are in private subnets, without a public address."
  }

  assert {
    condition     = alltrue([for group in output.posture.open_groups : group == output.posture.alb_group])
    error_message = "Only the load balancer's security group may admit addresses."
  }

  # gRPC is for those who read through the cache; and neither talks to Redis.
  assert {
    condition     = [for rule in output.posture.admitted : rule if strcontains(rule, "-8001")] == ["cache-front-end-cache-node-8001", "cache-node-cache-node-8001", "gateway-cache-node-8001"]
    error_message = "Nodes admit nodes, front ends and gateways on 8001, and nobody else."
  }

  assert {
    condition     = [for rule in output.posture.admitted : rule if strcontains(rule, "-9999")] == ["alb-cache-front-end-9999"]
    error_message = "The front ends admit the load balancer."
  }

  assert {
    condition = length(setsubtract(
      flatten([for name in ["cache-node", "cache-front-end"] : ["${name}-postgres-5432", "${name}-nats-4222", "${name}-endpoints-443"]]), output.posture.admitted
    )) == 0 && length([for rule in output.posture.admitted : rule if startswith(rule, "cache-") && strcontains(rule, "redis")]) == 0
    error_message = "Nodes and front ends reach PostgreSQL, NATS and the endpoints, and not Redis."
  }

  assert {
    condition = alltrue([for name in ["cache-node", "cache-front-end"] :
      toset(output.posture.services[name].container.secrets[*].name) == toset(["NATS_PASSWORD", "POSTGRES_PASSWORD", "ALIAS_SECRET"])
    ])
    error_message = "Nodes and front ends get the secrets that they use, and no others."
  }

  assert {
    condition = alltrue(flatten([for name in ["cache-node", "cache-front-end"] : [
      for setting in output.posture.services[name].container.environment :
      !startswith(setting.name, "REDIS") && !can(regex("(PASSWORD|SECRET|TOKEN|CREDENTIAL)", setting.name)) && !can(regex("://[^/@\\s]*:[^/@\\s]+@", setting.value))
    ]]))
    error_message = "No secret and nothing of Redis may be in the plain settings."
  }

  assert {
    condition     = alltrue([for name in ["cache-node", "cache-front-end"] : toset([for right in output.posture.services[name].task_rights : right if !startswith(right, "ssmmessages:")]) == toset(["cloudwatch:PutMetricData", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"])])
    error_message = "Nodes and front ends may report their metrics, and the collector beside them may, and nothing else."
  }

  assert {
    condition = alltrue([for name in ["cache-node", "cache-front-end"] :
      output.posture.services[name].container.readonlyRootFilesystem
      && output.posture.services[name].container.linuxParameters.capabilities.drop == ["ALL"]
      && output.posture.services[name].container.healthCheck.command[1] == "python"
      && output.posture.services[name].container.stopTimeout > 20
      && output.posture.services[name].circuit_breaker[0].rollback
      && output.posture.services[name].log_key == output.posture.key_arn
    ])
    error_message = "They are locked down, checked, rolled back and stopped like the other services."
  }

  assert {
    condition = length(setsubtract(
      ["CACHE_ROLE=node", "READ_CACHE_BYTES_MAX=536870912", "READ_CACHE_LOADS_MAX=8"],
      [for each in output.posture.services["cache-node"].container.environment : "${each.name}=${each.value}"],
    )) == 0 && contains([for each in output.posture.services["cache-front-end"].container.environment : "${each.name}=${each.value}"], "CACHE_ROLE=front_end")
    error_message = "A node keeps half of its memory, a front end nothing."
  }

  assert {
    condition     = contains([for each in output.posture.services["gateway"].container.environment : "${each.name}=${each.value}"], "READ_CACHE=cluster")
    error_message = "The gateways have to read through the nodes."
  }

  assert {
    condition     = output.posture.services["cache-node"].registered && output.posture.services["cache-front-end"].balanced && output.posture.front_end_paths == ["/api"]
    error_message = "Nodes are in Cloud Map; the balancer leads /api, and nothing else, to the front ends."
  }

  assert {
    condition     = toset(output.posture.services["cache-node"].capacity) == toset(["FARGATE 0 1"])
    error_message = "In prod no node is on Spot by default."
  }

  # Somebody is told.
  assert {
    condition = length(setsubtract(
      [for each in ["cache-hit-rate", "cache-p99", "cache-questions", "cache-nodes", "cache-keeping", "cpu-cache-node", "cpu-cache-front-end", "front-end-unhealthy"] : "bidding-prod-${each}"],
      output.posture.alarms
    )) == 0 && alltrue([for alarm in output.posture.cache_alarms : length(alarm.actions) == 1])
    error_message = "An alarm of the read cache is missing, or tells nobody."
  }

  assert {
    condition = (output.posture.cache_alarms["cache-hit-rate"].threshold == 0.85 && output.posture.cache_alarms["cache-hit-rate"].comparison == "LessThanThreshold"
      && output.posture.cache_alarms["cache-hit-rate"].compared == "IF(gets >= 100, gets - loads, 1) / IF(gets >= 100, gets, 1)"
    && toset(output.posture.cache_alarms["cache-hit-rate"].metrics) == toset(flatten([for service in ["api_gateway", "cache_node", "cache_front_end"] : ["${service} CacheGets Sum", "${service} CacheLoads Sum"]])))
    error_message = "The hit rate is that of all readers together, and few gets say nothing of it."
  }

  assert {
    condition = (output.posture.cache_alarms["cache-p99"].threshold == 0.05 && output.posture.cache_alarms["cache-p99"].compared == "IF(gets >= 100, seconds, 0)"
    && contains(output.posture.cache_alarms["cache-p99"].metrics, "cache_front_end CacheGetSeconds p99"))
    error_message = "A p99 over 50 ms has to be told."
  }

  assert {
    condition     = output.posture.cache_alarms["cache-questions"].threshold == 30000 && length(output.posture.cache_alarms["cache-questions"].metrics) == 3
    error_message = "Questions to PostgreSQL have a bound, whoever asks them."
  }

  assert {
    condition = alltrue([for name, least in { cache-nodes = 3, cache-keeping = 1 } :
      output.posture.cache_alarms[name].threshold == least && output.posture.cache_alarms[name].comparison == "LessThanThreshold" && output.posture.cache_alarms[name].missing == "breaching"
    ])
    error_message = "Fewer than three nodes, a node that keeps nothing, and silence have to be told."
  }

  assert {
    condition     = length([for title in output.posture.dashboard : title if startswith(title, "Read cache: ")]) == 8
    error_message = "The dashboard has to show the read cache."
  }
}

run "some_nodes_on_spot_and_front_ends_inside" {
  variables {
    cache_node_enabled      = true
    cache_front_end         = "internal"
    cache_front_end_clients = ["sg-0123456789abcdef0"]
    gateway_settings        = { READ_CACHE = "local" }
    cache_services = {
      node      = { cpu = 1024, memory = 4096, min = 4, max = 12, target = 300000, cpu_percent = 50, loads_max = 8, spot = true, on_demand_base = 2 }
      front_end = { cpu = 256, memory = 512, min = 2, max = 4, target = 15000, cpu_percent = 60, loads_max = 4, spot = false, on_demand_base = 0 }
    }
  }

  assert {
    condition     = toset(output.posture.services["cache-node"].capacity) == toset(["FARGATE 2 0", "FARGATE_SPOT 0 1"])
    error_message = "Two nodes have to be on demand, and the rest on Spot."
  }

  assert {
    condition     = output.posture.cache_alarms["cache-nodes"].threshold == 4
    error_message = "The alarm has to follow the smallest number of nodes."
  }

  assert {
    condition = (!output.posture.services["cache-front-end"].balanced && output.posture.services["cache-front-end"].registered
    && length(output.posture.front_end_paths) == 0 && !contains(output.posture.admitted, "alb-cache-front-end-9999"))
    error_message = "An internal front end is in Cloud Map, and the balancer does not lead to it."
  }

  assert {
    condition     = contains([for each in output.posture.services["gateway"].container.environment : "${each.name}=${each.value}"], "READ_CACHE=local")
    error_message = "gateway_settings have the last word on READ_CACHE."
  }
}

run "nodes_are_three_to_twelve" {
  command = plan

  variables {
    cache_services = {
      node      = { cpu = 512, memory = 1024, min = 3, max = 13, target = 300000, cpu_percent = 60, loads_max = 8, spot = false, on_demand_base = 0 }
      front_end = { cpu = 512, memory = 1024, min = 2, max = 6, target = 30000, cpu_percent = 60, loads_max = 8, spot = false, on_demand_base = 0 }
    }
  }

  expect_failures = [var.cache_services]
}

run "not_all_nodes_are_on_spot" {
  command = plan

  variables {
    cache_services = {
      node      = { cpu = 512, memory = 1024, min = 3, max = 12, target = 300000, cpu_percent = 60, loads_max = 8, spot = true, on_demand_base = 0 }
      front_end = { cpu = 512, memory = 1024, min = 2, max = 6, target = 30000, cpu_percent = 60, loads_max = 8, spot = false, on_demand_base = 0 }
    }
  }

  expect_failures = [var.cache_services]
}

run "clients_are_for_internal_front_ends" {
  command = plan

  variables {
    cache_front_end_clients = ["sg-0123456789abcdef0"]
  }

  expect_failures = [var.cache_front_end_clients]
}

run "memorydb_may_acknowledge_after_the_commit" {
  variables {
    redis_two_passwords  = true
    redis_former_account = true
    redis_engine         = "memorydb"
    redis_node_type      = "db.r7g.large"
    bid_ack              = "redis"
  }

  assert {
    condition     = output.posture.redis.engine == "memorydb" && output.posture.redis.encrypted && output.posture.redis.tls && output.posture.redis.password_required
    error_message = "MemoryDB needs encryption, TLS and a password too."
  }

  # Names of users there are those of a whole account of AWS.
  assert {
    condition = output.posture.redis.accounts == tomap(jsondecode(file("../../modules/redis/users.json"))) && alltrue([for name in keys(output.posture.redis.accounts) :
      contains([for each in output.posture.services[name].container.environment : "${each.name}=${each.value}"], "REDIS_USER=bidding-prod-${name}")
    ])
    error_message = "Each service has its account at MemoryDB too."
  }

  assert {
    condition     = toset(output.posture.redis.members) == toset([for name in ["bidding", "gateway", "broadcaster", "archiver", "operator"] : "bidding-prod-${name}"])
    error_message = "The account of before holds while the platform moves over."
  }

  assert {
    condition     = output.posture.redis.passwords == { gateway = 2, broadcaster = 2, archiver = 2, operator = 2 }
    error_message = "Both passwords hold while services change over."
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

run "redis_may_be_a_cluster" {
  variables {
    redis_shards         = 3
    redis_replicas       = 2
    redis_former_account = true
  }

  assert {
    condition     = output.posture.redis.accounts == tomap(jsondecode(file("../../modules/redis/users.json"))) && output.posture.redis.nameless == "on ~* &* +@all"
    error_message = "A cluster knows the same accounts; while it moves over from its token, who has that is let in."
  }

  assert {
    condition     = output.posture.redis.shards == 3 && output.posture.redis.nodes_per_shard == 3 && output.posture.redis.fails_over && output.posture.redis.multi_az
    error_message = "Three shards were asked for, each with two replicas in other zones."
  }

  assert {
    condition     = output.posture.redis.parameters == tomap({ "maxmemory-policy" = "noeviction", "cluster-enabled" = "yes", "cluster-require-full-coverage" = "no" })
    error_message = "A cluster needs cluster mode, and goes on where a shard is away; it evicts nothing either."
  }

  assert {
    condition     = output.posture.redis.tls && output.posture.redis.password_required && output.posture.redis.encrypted && output.posture.redis.final_snapshot == "bidding-prod-final"
    error_message = "A cluster has the same protection."
  }

  assert {
    condition = alltrue([for name in ["gateway", "broadcaster", "archiver", "operator"] :
      contains([for each in output.posture.services[name].container.environment : "${each.name}=${each.value}"], "REDIS_URL=rediss+cluster://clustercfg.bidding.abc.use1.cache.amazonaws.com:6379")
    ])
    error_message = "All that talk to Redis have to know that it is a cluster."
  }

  assert {
    condition     = length([for name in output.posture.alarms : name if startswith(name, "bidding-prod-redis-memory-bidding-prod-000")]) == 9
    error_message = "Each node is watched, by the names that they have in cluster mode."
  }
}

run "memorydb_is_no_cluster" {
  command = plan

  variables {
    redis_engine    = "memorydb"
    redis_node_type = "db.r7g.large"
    redis_shards    = 2
  }

  expect_failures = [var.redis_shards]
}

run "shards_are_bounded" {
  command = plan

  variables {
    redis_shards = 17
  }

  expect_failures = [var.redis_shards]
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
