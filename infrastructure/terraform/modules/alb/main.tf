# The way in: TLS, one name for API, pages and feed, and a firewall that counts requests and guards the operators' paths.

terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

resource "aws_lb" "this" {
  #checkov:skip=CKV2_AWS_76:the firewall has AWSManagedRulesKnownBadInputsRuleSet, in the CloudFormation stack of firewall.tf, where this check does not look
  #checkov:skip=CKV_AWS_150:deletion protection is on in prod and off in dev, so that dev can be destroyed with one command; tested in envs/prod
  name                       = var.name
  internal                   = false
  load_balancer_type         = "application"
  subnets                    = var.public_subnet_ids
  security_groups            = [var.security_group_id]
  enable_deletion_protection = var.deletion_protection
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "defensive"
  # Each viewer is pinged every 20 s, so an idle minute means that the viewer is gone. It must stay below the 75 s after
  # which the services close an idle connection themselves: else a request may meet a closing connection and come back as 502.
  idle_timeout = var.idle_timeout_s
  # The right-most address in X-Forwarded-For is then the balancer's word, whatever the client sent.
  xff_header_processing_mode = "append"

  access_logs {
    bucket  = var.log_bucket
    prefix  = "alb"
    enabled = true
  }
}

resource "aws_lb_target_group" "this" {
  for_each    = local.targets
  name        = "${var.name}-${each.key}"
  vpc_id      = var.vpc_id
  target_type = "ip"
  #checkov:skip=CKV_AWS_378:TLS ends at the balancer; behind it are private subnets whose security groups admit the balancer alone
  protocol                      = "HTTP"
  port                          = each.value.port
  deregistration_delay          = each.value.deregistration_delay_s
  load_balancing_algorithm_type = "least_outstanding_requests"

  # /health and not /ready: ECS replaces tasks that fail here, and would replace every gateway if Redis were away for
  # a minute. What is degraded is an alarm, not a reason to restart.
  health_check {
    path                = "/health"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }

  # No stickiness: every gateway gives the same answer, and a viewer resumes on any broadcaster with `since`.
  stickiness {
    type    = "lb_cookie"
    enabled = false
  }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.this.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type = "redirect"

    redirect {
      port        = "443"
      protocol    = "HTTPS"
      status_code = "HTTP_301"
    }
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = local.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this["gateway"].arn
  }
}

resource "aws_lb_listener_rule" "feed" {
  listener_arn = aws_lb_listener.https.arn
  priority     = 10

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this["broadcaster"].arn
  }

  condition {
    path_pattern {
      values = ["/ws", "/ws/*", "/sse/*", "/stats/*"]
    }
  }
}

# One path, and nothing below it: `/api/v1/…` is the gateway's. Operators' paths of a front end, such as /metrics, stay inside.
resource "aws_lb_listener_rule" "front_end" {
  count        = var.front_end ? 1 : 0
  listener_arn = aws_lb_listener.https.arn
  priority     = 20

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this["front-end"].arn
  }

  condition {
    path_pattern {
      values = ["/api"]
    }
  }
}

locals {
  # For this long the balancer lets the connections of a leaving task go on. Then it breaks them, and only then ECS sends
  # SIGTERM. Answers take milliseconds. Viewers never leave by themselves, so that a longer wait would only put off the moment
  # in which those of the task are all cut off; they come back at random pauses and resume with `since`.
  targets = merge(
    {
      # A request's body may take 15 s to arrive, and its bid 8 s to be decided: Redis' bound, and the look for a lost answer.
      gateway     = { port = 8080, deregistration_delay_s = 30 }
      broadcaster = { port = 8081, deregistration_delay_s = 5 }
    },
    # A get takes milliseconds, 5 s at most.
    var.front_end ? { front-end = { port = 9999, deregistration_delay_s = 10 } } : {},
  )
}
