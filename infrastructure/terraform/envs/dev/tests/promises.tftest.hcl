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
    condition     = !output.posture.alb_protected && !output.posture.postgres.deletion_protection
    error_message = "Dev has to go with one command."
  }

  # One of everything that costs.
  assert {
    condition     = !output.posture.postgres.multi_az && !output.posture.redis.multi_az && length([for name in keys(output.posture.services) : name if startswith(name, "nats-")]) == 1
    error_message = "Dev is priced with one node of each."
  }

  # The read cache is not built yet.
  assert {
    condition     = !contains(keys(output.posture.services), "cache-node")
    error_message = "The read cache is not built yet."
  }
}

run "what_can_be_chosen" {
  variables {
    cache_node_enabled = true
    nats_servers       = 3
    bid_ack            = "redis"
  }

  assert {
    condition     = output.posture.services["cache-node"].min_tasks == 3 && !output.posture.services["cache-node"].public_ip
    error_message = "Three nodes, in private."
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
