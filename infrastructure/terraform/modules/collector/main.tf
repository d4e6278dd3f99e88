# What scrapes /metrics on AWS: the collector of the AWS Distro for OpenTelemetry, beside the service in each of its tasks. It asks
# 127.0.0.1, so that no port has to be opened for it, and it can read a /metrics that only this machine may see. Why beside the service
# and not once for all: docs/decisions/0066.
#
# It writes lines in CloudWatch's embedded metric format to one log group; CloudWatch makes metrics of them. The task has no way out,
# so its image is a copy in the account's own registry: docs/deploy-aws.md, step 4.

terraform {
  required_version = ">= 1.11"
}

locals {
  configuration = {
    receivers = {
      prometheus = {
        config = {
          scrape_configs = [{
            job_name        = var.service
            scrape_interval = "60s"
            scrape_timeout  = "10s"
            static_configs  = [{ targets = ["127.0.0.1:${var.port}"], labels = { Service = var.service } }]
            # Only the metrics that a panel shows: each one costs $0.30 a month.
            metric_relabel_configs = [{ source_labels = ["__name__"], regex = join("|", var.metrics), action = "keep" }]
          }]
        }
      }
    }
    processors = {
      memory_limiter = { check_interval = "1s", limit_mib = 80, spike_limit_mib = 16 }
      batch          = { timeout = "30s", send_batch_size = 200, send_batch_max_size = 1000 }
    }
    exporters = {
      awsemf = {
        region                  = var.region
        namespace               = var.namespace
        log_group_name          = var.log_group
        log_stream_name         = "${var.service}-{TaskId}"
        dimension_rollup_option = "NoDimensionRollup"
        # One dimension, as of what the services report themselves: CloudWatch adds up over tasks.
        metric_declarations = [{ dimensions = [["Service"]], metric_name_selectors = [for name in var.metrics : "^${name}$"] }]
      }
    }
    # Its own log is that of the task, in the group of the service.
    service = {
      telemetry = { logs = { level = "warn" }, metrics = { level = "none" } }
      pipelines = { metrics = { receivers = ["prometheus"], processors = ["memory_limiter", "batch"], exporters = ["awsemf"] } }
    }
  }

  container = {
    name  = "collector"
    image = var.image
    # Without figures a service works on.
    essential = false
    # A collector that ends, say for want of memory, is started again; otherwise its task would have no figures any more.
    restartPolicy          = { enabled = true, restartAttemptPeriod = 60 }
    memory                 = 128
    readonlyRootFilesystem = true
    stopTimeout            = 10
    # YAML knows JSON.
    environment     = [{ name = "AOT_CONFIG_CONTENT", value = jsonencode(local.configuration) }]
    linuxParameters = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = var.service_log_group
        awslogs-region        = var.region
        awslogs-stream-prefix = "collector"
        mode                  = "non-blocking"
        max-buffer-size       = "4m"
      }
    }
  }
}
