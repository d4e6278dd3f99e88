# NATS with JetStream, one ECS service per server, so that each keeps its name, its zone and its address in Cloud Map.
#
# Where a server's disk is: on EFS, a file system of its own, which stays when AWS retires the tasks of all three at once; or, with
# `keep_disks = false`, on its task's own disk, which goes with the task. docs/decisions/0066 and 0028 weigh the two. What JetStream
# loses all the same, the outbox in Redis still has, and the relay publishes it again from the archived cursor.

terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

locals {
  names     = [for index in range(var.servers) : "nats-${index}"]
  hosts     = [for name in local.names : "${name}.${var.dns_namespace}"]
  user      = "bidding"
  data_path = "/data"
  # The configuration has the passwords in it, so it is on the task's own disk, wherever the data are.
  run_path = "/run/nats"
  # The store may fill this share of the disk; the rest is for what JetStream writes while it compacts.
  store_gib = floor((var.ephemeral_storage_gib == null ? 20 : var.ephemeral_storage_gib) * 0.6)

  configuration = {
    for name in local.names : name => templatefile("${path.module}/nats.conf.tftpl", {
      name      = name
      users     = file("${path.module}/users.conf")
      data_path = local.data_path
      memory_mb = floor(var.memory / 4)
      store_gib = local.store_gib
      sync_s    = var.keep_disks ? 10 : 120
      # A single server needs no routes, and without a cluster it needs no majority.
      routes = var.servers > 1 ? [for host in local.hosts : host] : []
    })
  }

  # Quoted in the file, because nats.conf would read a password that begins with a digit as a number. Passwords have letters
  # and digits only, so sed needs no quoting.
  start = "umask 077 && date +%s > ${local.run_path}/started && printf '%s' \"$NATS_CONFIGURATION\" | sed -e \"s/@PASSWORD@/$NATS_PASSWORD/g\" -e \"s/@ROUTE_PASSWORD@/$NATS_ROUTE_PASSWORD/g\" -e \"s/@GATEWAY_PASSWORD@/$GATEWAY_PASSWORD/g\" -e \"s/@BROADCASTER_PASSWORD@/$BROADCASTER_PASSWORD/g\" -e \"s/@ARCHIVER_PASSWORD@/$ARCHIVER_PASSWORD/g\" -e \"s/@CACHE_PASSWORD@/$CACHE_PASSWORD/g\" -e \"s/@OPERATOR_PASSWORD@/$OPERATOR_PASSWORD/g\" > ${local.run_path}/nats.conf && exec nats-server -c ${local.run_path}/nats.conf"
}

data "aws_secretsmanager_random_password" "client" {
  password_length     = 48
  exclude_punctuation = true
}

data "aws_secretsmanager_random_password" "route" {
  password_length     = 48
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:servers and clients have to change it together; docs/deploy-aws.md has the steps
  name_prefix             = "${var.prefix}/nats-"
  description             = "Passwords of NATS: of clients, and between servers"
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.secret_recovery_days
}

resource "aws_secretsmanager_secret_version" "this" {
  secret_id = aws_secretsmanager_secret.this.id
  secret_string = jsonencode({
    password       = data.aws_secretsmanager_random_password.client.random_password
    route_password = data.aws_secretsmanager_random_password.route.random_password
  })

  lifecycle {
    # The data sources answer anew at each plan; what counts is the first answer.
    ignore_changes = [secret_string]
  }
}

resource "aws_service_discovery_service" "this" {
  for_each = toset(local.names)
  name     = each.key

  dns_config {
    namespace_id   = var.dns_namespace_id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 5
    }
  }
}

# One after the other: an apply that changes all three waits for each before it touches the next.
module "server_0" {
  source           = "../ecs-service"
  name             = "nats-0"
  prefix           = var.prefix
  account_id       = var.account_id
  region           = var.region
  cluster_arn      = var.cluster_arn
  cluster_name     = var.cluster_name
  image            = var.image
  repository_arn   = var.repository_arn
  entry_point      = ["/bin/sh", "-c"]
  command          = [local.start]
  cpu              = var.cpu
  memory           = var.memory
  cpu_architecture = var.cpu_architecture
  ports            = [4222, 6222]
  environment      = { NATS_CONFIGURATION = local.configuration["nats-0"] }
  secrets          = local.secrets
  secret_arns      = [aws_secretsmanager_secret_version.this.arn, var.account_secret_arn]
  scratch_volumes  = local.scratch_volumes
  kept_volumes     = local.kept_volumes["nats-0"]
  task_statements  = local.disk_statements["nats-0"]
  health_check     = local.health_check
  # Long enough to hand over leadership and to write the store's state.
  stop_timeout_s        = 60
  ephemeral_storage_gib = var.ephemeral_storage_gib
  subnet_ids            = [var.subnet_ids[0]]
  security_group_id     = var.security_group_id
  enable_exec           = var.enable_exec
  log_retention_days    = var.log_retention_days
  kms_key_arn           = var.kms_key_arn

  service = {
    desired          = 1
    registry_arn     = aws_service_discovery_service.this["nats-0"].arn
    replace_in_place = true
  }

  depends_on = [aws_efs_mount_target.this]
}

module "server_1" {
  source                = "../ecs-service"
  count                 = var.servers > 1 ? 1 : 0
  name                  = "nats-1"
  prefix                = var.prefix
  account_id            = var.account_id
  region                = var.region
  cluster_arn           = var.cluster_arn
  cluster_name          = var.cluster_name
  image                 = var.image
  repository_arn        = var.repository_arn
  entry_point           = ["/bin/sh", "-c"]
  command               = [local.start]
  cpu                   = var.cpu
  memory                = var.memory
  cpu_architecture      = var.cpu_architecture
  ports                 = [4222, 6222]
  environment           = { NATS_CONFIGURATION = local.configuration["nats-1"] }
  secrets               = local.secrets
  secret_arns           = [aws_secretsmanager_secret_version.this.arn, var.account_secret_arn]
  scratch_volumes       = local.scratch_volumes
  kept_volumes          = local.kept_volumes["nats-1"]
  task_statements       = local.disk_statements["nats-1"]
  health_check          = local.health_check
  stop_timeout_s        = 60
  ephemeral_storage_gib = var.ephemeral_storage_gib
  subnet_ids            = [var.subnet_ids[1 % length(var.subnet_ids)]]
  security_group_id     = var.security_group_id
  enable_exec           = var.enable_exec
  log_retention_days    = var.log_retention_days
  kms_key_arn           = var.kms_key_arn

  service = {
    desired          = 1
    registry_arn     = aws_service_discovery_service.this["nats-1"].arn
    replace_in_place = true
  }

  # And its disk's way in.
  depends_on = [module.server_0, aws_efs_mount_target.this]
}

module "server_2" {
  source                = "../ecs-service"
  count                 = var.servers > 2 ? 1 : 0
  name                  = "nats-2"
  prefix                = var.prefix
  account_id            = var.account_id
  region                = var.region
  cluster_arn           = var.cluster_arn
  cluster_name          = var.cluster_name
  image                 = var.image
  repository_arn        = var.repository_arn
  entry_point           = ["/bin/sh", "-c"]
  command               = [local.start]
  cpu                   = var.cpu
  memory                = var.memory
  cpu_architecture      = var.cpu_architecture
  ports                 = [4222, 6222]
  environment           = { NATS_CONFIGURATION = local.configuration["nats-2"] }
  secrets               = local.secrets
  secret_arns           = [aws_secretsmanager_secret_version.this.arn, var.account_secret_arn]
  scratch_volumes       = local.scratch_volumes
  kept_volumes          = local.kept_volumes["nats-2"]
  task_statements       = local.disk_statements["nats-2"]
  health_check          = local.health_check
  stop_timeout_s        = 60
  ephemeral_storage_gib = var.ephemeral_storage_gib
  subnet_ids            = [var.subnet_ids[2 % length(var.subnet_ids)]]
  security_group_id     = var.security_group_id
  enable_exec           = var.enable_exec
  log_retention_days    = var.log_retention_days
  kms_key_arn           = var.kms_key_arn

  service = {
    desired          = 1
    registry_arn     = aws_service_discovery_service.this["nats-2"].arn
    replace_in_place = true
  }

  depends_on = [module.server_1]
}

locals {
  # users.conf says who may do what: python -m infrastructure.docker.permissions writes it.
  secrets = merge(var.account_passwords, {
    NATS_PASSWORD       = "${aws_secretsmanager_secret_version.this.arn}:password::"
    NATS_ROUTE_PASSWORD = "${aws_secretsmanager_secret_version.this.arn}:route_password::"
  })

  scratch_volumes = merge({ run = local.run_path }, var.keep_disks ? {} : { data = local.data_path })

  # Two questions. First, until the answer was yes once in this task's life: does the server have all that its streams have elsewhere? A
  # roll goes on only then, because ECS calls a task healthy by this, and `apply` and `bidding deploy` wait for that before they
  # touch the next server. A server that sees no other one, at the first start or after the loss of all, has nobody to catch up
  # with. From then on: does its JetStream work? Not whether the streams have a majority: a server that waits for the others must
  # not be replaced. One whose disk fails stops its JetStream by itself, and is replaced.
  #
  # NATS' own /healthz does not answer the first question alone. To it a server is well that has fetched the log of a stream and still
  # writes the messages in it to its store, however many are left, if only they become fewer; and one that has not yet heard of a
  # stream's leader. So two looks at /raftz come first: current.awk says what they must show. A single server has no log.
  monitor = "http://127.0.0.1:8222"
  # Routes take a moment; only after so many seconds a server without one is alone.
  alone_s = 20
  # Two heartbeats of a stream's leader.
  pause_s        = 2
  is_current     = file("${path.module}/current.awk")
  groups         = "wget -q -O - '${local.monitor}/raftz' && wget -q -O - '${local.monitor}/raftz?acc=$G'"
  looks          = "first=$(${local.groups}) && sleep ${local.pause_s} && second=$(${local.groups}) && printf %s \"$first later $second\" | awk '${local.is_current}'"
  is_single      = "! grep -q '^cluster' ${local.run_path}/nats.conf"
  has_caught_up  = "[ -e ${local.run_path}/caught-up ] || { { ${local.is_single} || { ${local.looks}; }; } && wget -q -O /dev/null '${local.monitor}/healthz' && touch ${local.run_path}/caught-up; }"
  sees_no_other  = "{ [ $(($(date +%s) - $(cat ${local.run_path}/started))) -ge ${local.alone_s} ] && wget -q -O - '${local.monitor}/routez' | grep -q '\"num_routes\": 0'; }"
  works          = "wget -q -O /dev/null '${local.monitor}/healthz?js-enabled-only=true'"
  health_command = "{ ${local.has_caught_up} || ${local.sees_no_other}; } && ${local.works} || exit 1"

  # Catching up may take ten minutes: five in which a failure does not count, and ten failures.
  health_check = {
    command     = ["CMD-SHELL", local.health_command]
    interval    = 30
    timeout     = 10
    retries     = 10
    startPeriod = 300
  }
}
