# One ECS service on Fargate, or, without `service`, only a task definition to be run once.

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
  exec_volumes = var.enable_exec ? { ssm-lib = "/var/lib/amazon", ssm-log = "/var/log/amazon" } : {}
  scratch      = merge(var.scratch_volumes, local.exec_volumes)
  # Disks that outlive the task, and those that end with it.
  paths = merge(local.scratch, { for name, disk in var.kept_volumes : name => disk.path })

  # On Spot the first tasks may be on demand, so that AWS cannot take all of them at once.
  on_demand = { provider = "FARGATE", base = try(var.service.on_demand_base, 0), weight = 0 }
  capacity = try(var.service.spot, false) ? concat(
    local.on_demand.base > 0 ? [local.on_demand] : [],
    [{ provider = "FARGATE_SPOT", base = 0, weight = 1 }],
  ) : [{ provider = "FARGATE", base = 0, weight = 1 }]

  container = {
    name                   = var.name
    image                  = var.image
    essential              = true
    command                = var.command
    entryPoint             = var.entry_point
    user                   = var.user
    readonlyRootFilesystem = true
    stopTimeout            = var.stop_timeout_s
    # A mapping, so that a task definition does not change with the order in which settings are written.
    environment  = [for name, value in var.environment : { name = name, value = value }]
    secrets      = [for name, reference in var.secrets : { name = name, valueFrom = reference }]
    portMappings = [for port in var.ports : { containerPort = port, hostPort = port, protocol = "tcp" }]
    mountPoints  = [for name, path in local.paths : { sourceVolume = name, containerPath = path, readOnly = false }]
    ulimits      = [{ name = "nofile", softLimit = var.open_files, hardLimit = var.open_files }]
    # An init process, so that signals reach the service and nothing is left behind by `execute-command`.
    linuxParameters = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
    healthCheck     = var.health_check
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = var.region
        awslogs-stream-prefix = var.name
        # A log service that is away must not stop a bid: lines are dropped past this buffer.
        mode            = "non-blocking"
        max-buffer-size = "16m"
      }
    }
  }
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_338:retention is a variable per environment; the archive of bids is PostgreSQL and S3, not the log
  name              = "/${var.prefix}/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_ecs_task_definition" "this" {
  family                   = "${var.prefix}-${var.name}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn

  # The service first, and then what runs beside it.
  container_definitions = jsonencode(concat(
    [{ for key, value in local.container : key => value if value != null }],
    [for each in var.companions : jsondecode(each)],
  ))
  # A revision that Terraform has replaced stays, because the service goes back to it where a deployment fails.
  skip_destroy = true

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }

  # Disks of the task itself, gone with it. They exist because the root file system cannot be written.
  dynamic "volume" {
    for_each = local.scratch

    content {
      name = volume.key
    }
  }

  dynamic "volume" {
    for_each = var.kept_volumes

    content {
      name = volume.key

      efs_volume_configuration {
        file_system_id     = volume.value.file_system_id
        transit_encryption = "ENABLED"

        authorization_config {
          access_point_id = volume.value.access_point_id
          iam             = "ENABLED"
        }
      }
    }
  }

  dynamic "ephemeral_storage" {
    for_each = var.ephemeral_storage_gib == null ? [] : [var.ephemeral_storage_gib]

    content {
      size_in_gib = ephemeral_storage.value
    }
  }
}

resource "aws_ecs_service" "this" {
  count                  = var.service == null ? 0 : 1
  name                   = var.name
  cluster                = var.cluster_arn
  task_definition        = aws_ecs_task_definition.this.arn
  desired_count          = var.service.desired
  platform_version       = "1.4.0"
  enable_execute_command = var.enable_exec
  propagate_tags         = "SERVICE"
  # Terraform must see a roll-back as a failed apply, not as a success.
  wait_for_steady_state             = true
  health_check_grace_period_seconds = var.service.target_group_arn == null ? null : var.service.grace_s

  deployment_minimum_healthy_percent = var.service.replace_in_place ? 0 : 100
  deployment_maximum_percent         = var.service.replace_in_place ? 100 : 200
  availability_zone_rebalancing      = var.service.replace_in_place ? "DISABLED" : "ENABLED"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  # An alarm that begins to ring while tasks are replaced, and for as long afterwards as its own periods last, takes the
  # service back. One that rings already does not count, so that a repair can be deployed.
  dynamic "alarms" {
    for_each = length(var.rollback_alarms) == 0 ? [] : [var.rollback_alarms]

    content {
      alarm_names = alarms.value
      enable      = true
      rollback    = true
    }
  }

  dynamic "capacity_provider_strategy" {
    for_each = local.capacity

    content {
      capacity_provider = capacity_provider_strategy.value.provider
      base              = capacity_provider_strategy.value.base
      weight            = capacity_provider_strategy.value.weight
    }
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [var.security_group_id]
    assign_public_ip = false
  }

  dynamic "load_balancer" {
    for_each = var.service.target_group_arn == null ? [] : [var.service.target_group_arn]

    content {
      target_group_arn = load_balancer.value
      container_name   = var.name
      container_port   = var.ports[0]
    }
  }

  dynamic "service_registries" {
    for_each = var.service.registry_arn == null ? [] : [var.service.registry_arn]

    content {
      registry_arn = service_registries.value
    }
  }

  lifecycle {
    # From the first minute on the number of tasks is the autoscaler's, and what they run is `bidding deploy`'s: a new revision
    # of the task definition takes effect with the next deployment, after the migrations. docs/decisions/0066.
    ignore_changes = [desired_count, task_definition]
  }
}
