# Who may talk to whom, all of it. A line of `connections` makes two rules: one to leave, one to enter.

locals {
  groups = merge(local.groups_of_all, var.read_cache ? local.groups_of_cache : {})

  groups_of_all = {
    alb         = "Load balancer, the only thing that the internet reaches"
    gateway     = "Gateway tasks"
    broadcaster = "Broadcaster tasks"
    archiver    = "Archival worker tasks, migrations and recovery"
    nats        = "NATS servers"
    nats-disk   = "Disks of the NATS servers"
    redis       = "ElastiCache or MemoryDB"
    postgres    = "RDS PostgreSQL"
    endpoints   = "Endpoints of AWS services"
  }

  groups_of_cache = {
    cache-node      = "Cache node tasks"
    cache-front-end = "Front ends of the read cache"
  }

  services = concat(["gateway", "broadcaster", "archiver"], var.read_cache ? keys(local.groups_of_cache) : [])

  # Who may ask nodes for what they keep; where a node is dead, each of these asks PostgreSQL itself.
  connections_of_cache = concat(
    [for reader in ["gateway", "cache-front-end", "cache-node"] : { from = reader, to = "cache-node", port = 8001 }],
    [for name in ["cache-front-end", "cache-node"] : { from = name, to = "postgres", port = 5432 }],
    var.front_end_behind_alb ? [{ from = "alb", to = "cache-front-end", port = 9999 }] : [],
  )

  connections = concat(
    [
      { from = "alb", to = "gateway", port = 8080 },
      { from = "alb", to = "broadcaster", port = 8081 },
      { from = "gateway", to = "redis", port = var.redis_port },
      { from = "broadcaster", to = "redis", port = var.redis_port },
      { from = "archiver", to = "redis", port = var.redis_port },
      { from = "gateway", to = "postgres", port = 5432 },
      { from = "broadcaster", to = "postgres", port = 5432 },
      { from = "archiver", to = "postgres", port = 5432 },
      { from = "nats", to = "nats", port = 6222 },
      { from = "nats", to = "nats-disk", port = 2049 },
      { from = "nats", to = "endpoints", port = 443 },
    ],
    [for service in local.services : { from = service, to = "nats", port = 4222 }],
    [for service in local.services : { from = service, to = "endpoints", port = 443 }],
    var.read_cache ? local.connections_of_cache : [],
  )

  connection_of_name = { for each in local.connections : "${each.from}-${each.to}-${each.port}" => each }
}

resource "aws_security_group" "this" {
  #checkov:skip=CKV2_AWS_5:they are attached in other modules, through the output security_group_ids
  for_each = local.groups
  # The new one is made before the old one goes, and two groups of a VPC cannot have one name.
  name_prefix = "${var.name}-${each.key}-"
  description = each.value
  vpc_id      = aws_vpc.this.id
  tags        = { Name = "${var.name}-${each.key}" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "internal" {
  for_each                     = local.connection_of_name
  security_group_id            = aws_security_group.this[each.value.to].id
  referenced_security_group_id = aws_security_group.this[each.value.from].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = "from ${each.value.from}"
}

resource "aws_vpc_security_group_egress_rule" "internal" {
  for_each                     = local.connection_of_name
  security_group_id            = aws_security_group.this[each.value.from].id
  referenced_security_group_id = aws_security_group.this[each.value.to].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = "to ${each.value.to}"
}

# Programs in this VPC that are no part of the platform, and ask a front end that is not behind the balancer.
resource "aws_vpc_security_group_ingress_rule" "front_end_clients" {
  for_each                     = var.read_cache ? toset(var.front_end_clients) : toset([])
  security_group_id            = aws_security_group.this["cache-front-end"].id
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 9999
  to_port                      = 9999
  description                  = "from a program of your own"
}

# Layers of images, and the exports of closed items.
resource "aws_vpc_security_group_egress_rule" "s3" {
  for_each          = toset(concat(local.services, ["nats"]))
  security_group_id = aws_security_group.this[each.key].id
  prefix_list_id    = aws_vpc_endpoint.s3.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "to S3"
}

locals {
  public_ports = { http = 80, https = 443 }
  public_rules = { for pair in setproduct(keys(local.public_ports), var.alb_ingress_cidrs) : "${pair[0]} ${pair[1]}" => { port = local.public_ports[pair[0]], cidr = pair[1] } }
}

# The only rules that name addresses instead of a security group.
resource "aws_vpc_security_group_ingress_rule" "public" {
  for_each          = local.public_rules
  security_group_id = aws_security_group.this["alb"].id
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  description       = each.value.port == 80 ? "to be redirected to HTTPS" : "HTTPS and WebSockets"
}
