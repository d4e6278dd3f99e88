# Two roles, two duties. The execution role is ECS' own: it fetches the image, the secrets and the log stream before the
# container runs. The task role is the service's. Neither has a right that the other needs.

locals {
  trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TasksOfThisAccount"
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = { "aws:SourceAccount" = var.account_id }
        ArnLike      = { "aws:SourceArn" = "arn:aws:ecs:${var.region}:${var.account_id}:*" }
      }
    }]
  })

  execution_statements = [
    {
      # The call that gives a registry token knows no resources.
      Sid      = "LogInToTheRegistry"
      Effect   = "Allow"
      Action   = ["ecr:GetAuthorizationToken"]
      Resource = ["*"]
    },
    {
      Sid      = "PullThisImage"
      Effect   = "Allow"
      Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      Resource = concat([var.repository_arn], var.companion_repository_arns)
    },
    {
      Sid      = "WriteThisLog"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = ["${aws_cloudwatch_log_group.this.arn}:*"]
    },
    {
      Sid      = "ReadTheseSecrets"
      Effect   = "Allow"
      Action   = ["secretsmanager:GetSecretValue"]
      Resource = var.secret_arns
    },
    {
      Sid       = "DecryptThem"
      Effect    = "Allow"
      Action    = ["kms:Decrypt"]
      Resource  = [var.kms_key_arn]
      Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${var.region}.amazonaws.com" } }
    },
  ]

  # `aws ecs execute-command` opens a channel from inside the task; the calls know no resources.
  exec_statements = var.enable_exec ? [{
    Sid      = "ExecuteCommandChannel"
    Effect   = "Allow"
    Action   = ["ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"]
    Resource = ["*"]
  }] : []

  # Through JSON, because the statements need not have the same keys.
  task_statements = concat([for statement in var.task_statements : jsondecode(statement)], local.exec_statements)
}

resource "aws_iam_role" "execution" {
  name_prefix        = "${var.prefix}-${var.name}-exec-"
  description        = "ECS before the start of ${var.name}: image, secrets, log"
  assume_role_policy = local.trust
}

resource "aws_iam_role_policy" "execution" {
  #checkov:skip=CKV_AWS_290:the one statement without a resource is ecr:GetAuthorizationToken, which has none
  #checkov:skip=CKV_AWS_355:the one statement without a resource is ecr:GetAuthorizationToken, which has none
  name   = "start"
  role   = aws_iam_role.execution.id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.execution_statements })
}

resource "aws_iam_role" "task" {
  name_prefix        = "${var.prefix}-${var.name}-task-"
  description        = "${var.name} itself"
  assume_role_policy = local.trust
}

resource "aws_iam_role_policy" "task" {
  #checkov:skip=CKV_AWS_290:only ssmmessages of ECS Exec, which knows no resources, and only where enable_exec is on
  #checkov:skip=CKV_AWS_355:only ssmmessages of ECS Exec, which knows no resources, and only where enable_exec is on
  count  = length(local.task_statements) == 0 ? 0 : 1
  name   = "work"
  role   = aws_iam_role.task.id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.task_statements })
}
