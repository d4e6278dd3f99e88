# Web application firewall. Without tokens (auth_mode = open) the API knows no operators, so what is theirs is open to their networks
# alone: a test compares the rules with the table of docs/security.md. With tokens sellers and bidders have some of these calls, and the
# API itself tells who is who; creating, pausing, cancelling and voiding stays where it was. The rules are here and not in the listener
# because only the firewall decodes a path before it looks at it.
#
# It is a CloudFormation stack, not an aws_wafv2_web_acl: rules nest into each other without an end, which the provider's
# schema can only cut off somewhere. Here a rule is the document that AWS itself documents and shows.

locals {
  operator_paths = concat(
    ["^/metrics/?$", "^/api/v1/items/[^/]+/(cancel|extend|pause|resume)/?$", "^/api/v1/items/[^/]+/bids/.+/void/?$"],
    var.with_tokens ? [] : ["^/api/v1/(ops/.*|revocations)/?$", "^/api/v1/items/[^/]+/(audit|named-bids)/?$", "^/api/v1/items/[^/]+/bidders/?$", "^/api/v1/sellers/[^/]+/(items|bidders(/[^/]+)?)/?$", "^/api/v1/bidders/?$"],
  )
  operator_path = join("|", local.operator_paths)
  # One by one, in groups, and what they are shown with.
  create_path = "^/api/v1/(items(:batch)?|images)/?$"
  # All rulings on bidders are made by these, and nothing else where there are no tokens: watch lists need one.
  ruling_methods = "^(PUT|DELETE)$"

  # An encoded letter or a detour in the path must not lead past the rule.
  as_the_gateway_reads_it = [{ Priority = 0, Type = "URL_DECODE" }, { Priority = 1, Type = "NORMALIZE_PATH" }]
  not_an_operator         = { NotStatement = { Statement = { IPSetReferenceStatement = { Arn = { "Fn::GetAtt" = ["Operators", "Arn"] } } } } }

  # A proxy's address is that of a whole site: 3,000 requests a minute would be 50 bids a second for everybody. Its requests are
  # counted by the address that it forwards. Nobody else is believed: a client that writes that header itself is counted by its own address.
  has_proxies   = length(var.proxy_cidrs) > 0
  from_a_proxy  = { IPSetReferenceStatement = { Arn = { "Fn::GetAtt" = ["Proxies", "Arn"] } } }
  not_a_proxy   = { NotStatement = { Statement = local.from_a_proxy } }
  in_one_minute = { EvaluationWindowSec = 60 }
  by_address    = merge(local.in_one_minute, { Limit = var.requests_per_address, AggregateKeyType = "IP" })
  by_forwarded  = merge(local.in_one_minute, { Limit = var.requests_per_address, AggregateKeyType = "FORWARDED_IP", ForwardedIPConfig = { HeaderName = "X-Forwarded-For", FallbackBehavior = "NO_MATCH" } })
  by_proxy      = merge(local.in_one_minute, { Limit = var.requests_per_proxy, AggregateKeyType = "IP" })

  proxy_set = {
    Type = "AWS::WAFv2::IPSet"
    Properties = {
      Name             = "${var.name}-proxies"
      Description      = "The site or CDN in front"
      Scope            = "REGIONAL"
      IPAddressVersion = "IPV4"
      Addresses        = var.proxy_cidrs
    }
  }

  # Through JSON, because no two statements have the same shape.
  firewall_statements = merge(local.statements_of_all, local.has_proxies ? local.statements_of_proxies : {})

  statements_of_proxies = {
    requests-per-client = jsonencode({ RateBasedStatement = merge(local.by_forwarded, { ScopeDownStatement = local.from_a_proxy }) })
    requests-per-proxy  = jsonencode({ RateBasedStatement = merge(local.by_proxy, { ScopeDownStatement = local.from_a_proxy }) })
  }

  statements_of_all = {
    operators-only = jsonencode({ AndStatement = { Statements = [
      local.not_an_operator,
      { RegexMatchStatement = { RegexString = local.operator_path, FieldToMatch = { UriPath = {} }, TextTransformations = local.as_the_gateway_reads_it } },
    ] } })
    operators-create = jsonencode({ AndStatement = { Statements = [
      local.not_an_operator,
      jsondecode(var.with_tokens ? jsonencode(local.creates) : jsonencode({ OrStatement = { Statements = [local.creates, local.rules_on_bidders] } })),
    ] } })
    requests-per-address = jsonencode({ RateBasedStatement = merge(local.by_address, [for each in [local.not_a_proxy] : { ScopeDownStatement = each } if local.has_proxies]...) })
    known-bad-inputs     = jsonencode({ ManagedRuleGroupStatement = { VendorName = "AWS", Name = "AWSManagedRulesKnownBadInputsRuleSet" } })
  }

  creates = { AndStatement = { Statements = [
    { ByteMatchStatement = { SearchString = "POST", PositionalConstraint = "EXACTLY", FieldToMatch = { Method = {} }, TextTransformations = [{ Priority = 0, Type = "NONE" }] } },
    { RegexMatchStatement = { RegexString = local.create_path, FieldToMatch = { UriPath = {} }, TextTransformations = local.as_the_gateway_reads_it } },
  ] } }
  rules_on_bidders = { RegexMatchStatement = { RegexString = local.ruling_methods, FieldToMatch = { Method = {} }, TextTransformations = [{ Priority = 0, Type = "NONE" }] } }

  firewall_order = concat(
    ["operators-only", "operators-create", "requests-per-address", "known-bad-inputs"],
    local.has_proxies ? ["requests-per-client", "requests-per-proxy"] : [],
  )

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
    Resources = merge({ for name in ["Proxies"] : name => local.proxy_set if local.has_proxies }, {
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
    })
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
