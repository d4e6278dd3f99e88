# Web application firewall. The API knows no operators yet, so their paths are open to their networks alone. The rules are
# here and not in the listener because only the firewall decodes a path before it looks at it.
#
# It is a CloudFormation stack, not an aws_wafv2_web_acl: rules nest into each other without an end, which the provider's
# schema can only cut off somewhere. Here a rule is the document that AWS itself documents and shows.

locals {
  operator_path = "^/metrics/?$|^/api/v1/items/[^/]+/(cancel|pause|resume)/?$|^/api/v1/items/[^/]+/bids/[^/]+/void/?$"
  create_path   = "^/api/v1/items/?$"

  # An encoded letter or a detour in the path must not lead past the rule.
  as_the_gateway_reads_it = [{ Priority = 0, Type = "URL_DECODE" }, { Priority = 1, Type = "NORMALIZE_PATH" }]
  not_an_operator         = { NotStatement = { Statement = { IPSetReferenceStatement = { Arn = { "Fn::GetAtt" = ["Operators", "Arn"] } } } } }

  # Through JSON, because no two statements have the same shape.
  firewall_statements = {
    operators-only = jsonencode({ AndStatement = { Statements = [
      local.not_an_operator,
      { RegexMatchStatement = { RegexString = local.operator_path, FieldToMatch = { UriPath = {} }, TextTransformations = local.as_the_gateway_reads_it } },
    ] } })
    operators-create = jsonencode({ AndStatement = { Statements = [
      local.not_an_operator,
      { ByteMatchStatement = { SearchString = "POST", PositionalConstraint = "EXACTLY", FieldToMatch = { Method = {} }, TextTransformations = [{ Priority = 0, Type = "NONE" }] } },
      { RegexMatchStatement = { RegexString = local.create_path, FieldToMatch = { UriPath = {} }, TextTransformations = local.as_the_gateway_reads_it } },
    ] } })
    requests-per-address = jsonencode({ RateBasedStatement = { Limit = var.requests_per_address, AggregateKeyType = "IP", EvaluationWindowSec = 60 } })
    known-bad-inputs     = jsonencode({ ManagedRuleGroupStatement = { VendorName = "AWS", Name = "AWSManagedRulesKnownBadInputsRuleSet" } })
  }

  firewall_order = ["operators-only", "operators-create", "requests-per-address", "known-bad-inputs"]

  firewall_rules = [for index, name in local.firewall_order : jsonencode(merge(
    {
      Name             = name
      Priority         = index
      Statement        = jsondecode(local.firewall_statements[name])
      VisibilityConfig = { CloudWatchMetricsEnabled = true, SampledRequestsEnabled = true, MetricName = "${var.name}-${name}" }
    },
    # A managed group brings its actions along.
    { for key, value in { Action = { Block = {} }, OverrideAction = { None = {} } } : key => value if(key == "OverrideAction") == (name == "known-bad-inputs") },
  ))]
}

resource "aws_cloudformation_stack" "firewall" {
  #checkov:skip=CKV_AWS_124:Terraform itself waits for the stack and fails with its reason
  name       = "${var.name}-firewall"
  on_failure = "ROLLBACK"

  template_body = jsonencode({
    AWSTemplateFormatVersion = "2010-09-09"
    Resources = {
      Operators = {
        Type = "AWS::WAFv2::IPSet"
        Properties = {
          Name             = "${var.name}-operators"
          Description      = "Networks that may create, pause, cancel and void"
          Scope            = "REGIONAL"
          IPAddressVersion = "IPV4"
          Addresses        = var.operator_cidrs
        }
      }
      Firewall = {
        Type = "AWS::WAFv2::WebACL"
        Properties = {
          Name             = var.name
          Description      = "Rate, known bad input, and the paths of operators"
          Scope            = "REGIONAL"
          DefaultAction    = { Allow = {} }
          Rules            = [for rule in local.firewall_rules : jsondecode(rule)]
          VisibilityConfig = { CloudWatchMetricsEnabled = true, SampledRequestsEnabled = true, MetricName = var.name }
        }
      }
    }
    Outputs = {
      FirewallArn = { Value = { "Fn::GetAtt" = ["Firewall", "Arn"] } }
    }
  })
}

resource "aws_wafv2_web_acl_association" "this" {
  resource_arn = aws_lb.this.arn
  web_acl_arn  = aws_cloudformation_stack.firewall.outputs["FirewallArn"]
}

# The name has to begin like this.
resource "aws_cloudwatch_log_group" "firewall" {
  #checkov:skip=CKV_AWS_338:retention is a variable per environment; a year of blocked requests in dev is of no use
  name              = "aws-waf-logs-${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

# Requests that were let through are in the balancer's access log already.
resource "aws_wafv2_web_acl_logging_configuration" "this" {
  resource_arn            = aws_cloudformation_stack.firewall.outputs["FirewallArn"]
  log_destination_configs = [aws_cloudwatch_log_group.firewall.arn]

  logging_filter {
    default_behavior = "DROP"

    filter {
      behavior    = "KEEP"
      requirement = "MEETS_ANY"

      condition {
        action_condition {
          action = "BLOCK"
        }
      }
    }
  }
}
