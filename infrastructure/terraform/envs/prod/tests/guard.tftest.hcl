# What prod refuses to destroy or to make anew. Only plans: what this makes would not go again. That the guard refuses is seen with real
# Terraform in tests/integration/aws/test_terraform_guard.py.

mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  domain_name       = "auction.example.com"
  hosted_zone_id    = "Z0123456789ABC"
  alb_ingress_cidrs = ["198.51.100.0/24"]
  proxy_cidrs       = ["198.51.100.0/24"]
  image_tag         = "3f2a1bc"
  alarm_emails      = ["ops@example.com"]
}

run "everything_that_keeps_something_is_guarded" {
  command = plan

  assert {
    condition     = toset(output.protected) == toset(["ECS cluster", "gateway service", "broadcaster service", "archiver service", "Redis", "PostgreSQL", "exports", "nats-0", "nats-1", "nats-2", "disk of nats-0", "disk of nats-1", "disk of nats-2"])
    error_message = "Redis, PostgreSQL, ECS, NATS with its disks, and the exports have to resist deletion."
  }
}

run "memorydb_too" {
  command = plan

  variables {
    redis_engine    = "memorydb"
    redis_node_type = "db.r7g.large"
    bid_ack         = "redis"
  }

  assert {
    condition     = contains(output.protected, "Redis")
    error_message = "MemoryDB has to resist deletion."
  }
}
