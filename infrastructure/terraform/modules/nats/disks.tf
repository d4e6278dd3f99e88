# A file system per server and not one for all: damage to one leaves the other two copies alone.

locals {
  kept = toset(var.keep_disks ? local.names : [])

  kept_volumes = {
    for name in local.names : name => { for each in local.kept : "data" => {
      path            = local.data_path
      file_system_id  = aws_efs_file_system.this[each].id
      access_point_id = aws_efs_access_point.this[each].id
    } if each == name }
  }

  # The task's role, and no other one, may mount its disk and write to it.
  disk_statements = {
    for name in local.names : name => [for each in local.kept : jsonencode({
      Sid       = "MountItsOwnDisk"
      Effect    = "Allow"
      Action    = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
      Resource  = [aws_efs_file_system.this[each].arn]
      Condition = { StringEquals = { "elasticfilesystem:AccessPointArn" = aws_efs_access_point.this[each].arn } }
    }) if each == name]
  }
}

resource "aws_efs_file_system" "this" {
  for_each         = local.kept
  creation_token   = "${var.prefix}-${each.key}"
  encrypted        = true
  kms_key_id       = var.kms_key_arn
  throughput_mode  = "elastic"
  performance_mode = "generalPurpose"
  tags             = { Name = "${var.prefix}-${each.key}" }
}

resource "aws_efs_mount_target" "this" {
  for_each        = local.kept
  file_system_id  = aws_efs_file_system.this[each.key].id
  subnet_id       = var.subnet_ids[index(local.names, each.key) % length(var.subnet_ids)]
  security_groups = [var.disk_security_group_id]
}

resource "aws_efs_access_point" "this" {
  for_each       = local.kept
  file_system_id = aws_efs_file_system.this[each.key].id

  # The user of the image.
  posix_user {
    uid = 10002
    gid = 10002
  }

  root_directory {
    path = "/nats"

    creation_info {
      owner_uid   = 10002
      owner_gid   = 10002
      permissions = "0700"
    }
  }
}

# Only encrypted, and only with a role: a task in the subnet that has none is refused.
resource "aws_efs_file_system_policy" "this" {
  for_each       = local.kept
  file_system_id = aws_efs_file_system.this[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "RolesOfThisAccount"
        Effect    = "Allow"
        Principal = { AWS = "arn:aws:iam::${var.account_id}:root" }
        Action    = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
        Resource  = aws_efs_file_system.this[each.key].arn
      },
      {
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = "*"
        Resource  = aws_efs_file_system.this[each.key].arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}
