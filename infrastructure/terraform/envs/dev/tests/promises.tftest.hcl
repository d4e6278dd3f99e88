# What dev keeps of prod's promises, although it is small. Nothing reaches AWS.

mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  domain_name       = "auction-dev.example.com"
  certificate_arn   = "arn:aws:acm:us-east-1:123456789012:certificate/11111111-2222-3333-4444-555555555555"
  alb_ingress_cidrs = ["198.51.100.0/24"]
  image_tag         = "3f2a1bc"
  alarm_emails      = ["ops@example.com"]
}

run "promises" {
  # Small, but closed and encrypted like prod.
  assert {
    condition     = length(output.posture.open_groups) == 2 && alltrue([for group in output.posture.open_groups : group == output.posture.alb_group])
    error_message = "Only the load balancer's security group may admit addresses, on two ports from one network."
  }

  assert {
    condition     = alltrue([for subnet in output.posture.private_subnets : !contains(output.posture.internet_routes, output.posture.route_tables[subnet])])
    error_message = "No private subnet may have a route to the internet."
  }

  assert {
    condition     = output.posture.postgres.encrypted && output.posture.redis.encrypted && output.posture.redis.tls && output.posture.postgres.tls_forced
    error_message = "Dev is encrypted like prod, at rest and on the way."
  }

  assert {
    condition     = alltrue([for bucket in output.posture.buckets : bucket.closed && bucket.blocks_plain])
    error_message = "Every bucket has to be closed to the public and to plain HTTP."
  }

  assert {
    condition     = alltrue([for service in output.posture.services : service.circuit_breaker[0].rollback if service.is_service])
    error_message = "A deployment that does not come up has to be rolled back."
  }

  # It can be destroyed.
  assert {
    condition     = length(output.protected) == 0 && output.posture.redis.final_snapshot != "bidding-dev-final" && length(output.posture.nats_disks) == 0
    error_message = "Dev leaves nothing behind."
  }

  # And shows what prod shows.
  assert {
    condition     = output.posture.insights == "enabled" && contains(output.posture.dashboard, "Decision to frame") && contains(output.posture.dashboard, "Relay")
    error_message = "Container Insights and the local dashboard's panels are there in dev too."
  }

  assert {
    condition     = contains([for each in output.posture.services["gateway"].container.environment : "${each.name}=${each.value}"], "AUTH_MODE=open")
    error_message = "The gateway is told that it is open."
  }

  assert {
    condition     = !output.posture.alb_protected && !output.posture.postgres.deletion_protection
    error_message = "Dev has to go with one command."
  }

  # One of everything that costs.
  assert {
    condition     = !output.posture.postgres.multi_az && !output.posture.redis.multi_az && length([for name in keys(output.posture.services) : name if startswith(name, "nats-")]) == 1
    error_message = "Dev is priced with one node of each."
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

run "redis_is_one_unless_a_cluster_is_asked_for" {
  assert {
    condition = output.posture.redis.shards == 1 && output.posture.redis.nodes_per_shard == 1 && !output.posture.redis.fails_over && output.posture.redis.parameters == tomap({ "maxmemory-policy" = "noeviction" }) && contains(
      [for each in output.posture.services["gateway"].container.environment : "${each.name}=${each.value}"],
      "REDIS_URL=rediss://master.bidding.abc.use1.cache.amazonaws.com:6379/0",
    )
    error_message = "Dev has a single node, out of cluster mode."
  }
}

run "what_can_be_chosen" {
  variables {
    nats_servers = 3
    bid_ack      = "redis"
  }

  assert {
    condition     = length([for name in keys(output.posture.services) : name if startswith(name, "nats-")]) == 3
    error_message = "Three servers were asked for."
  }

  assert {
    condition     = contains([for each in output.posture.services["gateway"].container.environment : "${each.name}=${each.value}"], "BID_ACK=redis")
    error_message = "Dev may lose bids."
  }
}

# Nodes, front ends, and what watches them.
run "the_read_cache" {
  variables {
    cache_node_enabled = true
  }

  assert {
    condition     = output.posture.services["cache-node"].min_tasks == 3 && output.posture.services["cache-node"].max_tasks == 12 && output.posture.services["cache-front-end"].min_tasks >= 1
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
      ["CACHE_ROLE=node", "READ_CACHE_BYTES_MAX=268435456", "READ_CACHE_LOADS_MAX=2"],
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
    condition     = toset(output.posture.services["cache-node"].capacity) == toset(["FARGATE 1 0", "FARGATE_SPOT 0 1"])
    error_message = "In dev one node is on demand, and the others are on Spot."
  }

  # Somebody is told.
  assert {
    condition = length(setsubtract(
      [for each in ["cache-hit-rate", "cache-p99", "cache-questions", "cache-nodes", "cache-keeping", "cpu-cache-node", "cpu-cache-front-end", "front-end-unhealthy"] : "bidding-dev-${each}"],
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
    condition     = output.posture.cache_alarms["cache-questions"].threshold == 3000 && length(output.posture.cache_alarms["cache-questions"].metrics) == 3
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

run "a_certificate_or_a_zone" {
  command = plan

  variables {
    certificate_arn = null
    hosted_zone_id  = null
  }

  expect_failures = [var.certificate_arn]
}

run "an_open_platform_is_a_decision" {
  command = plan

  variables {
    alb_ingress_cidrs = []
  }

  expect_failures = [var.alb_ingress_cidrs]
}
