# Panels for the environment's dashboard, as modules/observability draws them: those of the row "Read cache" in
# infrastructure/docker/grafana, by the same titles. Lines that come from /metrics are left out without a collector.

locals {
  sum_lines  = { for figure in ["gets", "loads"] : figure => [for service in values(local.readers) : [var.metrics.namespace, var.metrics[figure], "Service", service]] }
  node_lines = { for name in ["served", "evictions", "bytes", "ring_nodes", "keeping"] : name => [var.metrics.namespace, var.metrics[name], "Service", local.readers.node] }

  # As /metrics of the reader calls them.
  scraped = { for name, lines in {
    hits     = [["bidding_cache_hits_total", "gateway"], ["cache_hits_total", "front_end"], ["cache_mirror_hits_total", "front_end"], ["cache_hits_total", "node"], ["cache_served_hits_total", "node"]]
    bound    = [["cache_bytes_max", "node"]]
    entries  = [["cache_entries", "node"]]
    too_big  = [["cache_too_big_total", "node"]]
    epoch    = [["cache_ring_epoch", "node"]]
    waiting  = [["cache_waiting", "node"]]
    failures = [["bidding_cache_fetch_failures_total", "gateway"], ["cache_fetch_failures_total", "front_end"], ["cache_fetch_failures_total", "node"]]
    settling = [["cache_unsettled", "node"]]
  } : name => [for line in lines : [var.metrics.namespace, line[0], "Service", local.readers[line[1]]] if var.scrapes] }

  # The same metrics and expressions as of the alarm; all but the last are not shown.
  hit_rate_lines = [
    for query in local.alarms["cache-hit-rate"].queries : jsondecode(query.expression == null
      ? jsonencode([var.metrics.namespace, query.name, "Service", query.service, { id = query.id, stat = query.statistic, visible = false }])
      : jsonencode([{ id = query.id, expression = query.expression, label = query.id, visible = query.id == "hit_rate" }])
    )
  ]

  get_time = [var.metrics.namespace, var.metrics.seconds, "Service", local.readers.front_end]

  panels = [
    jsonencode({ title = "Read cache: Gets and questions to PostgreSQL", statistic = "Sum", lines = concat(local.sum_lines.gets, local.sum_lines.loads) }),
    jsonencode({ title = "Read cache: Where gets are answered", statistic = "Sum", lines = concat(local.scraped.hits, [local.node_lines.served], local.sum_lines.loads) }),
    jsonencode({ title = "Read cache: Hit rate", statistic = "Sum", lines = local.hit_rate_lines }),
    jsonencode({ title = "Read cache: Time of a get at /api", statistic = "p99", lines = [concat(local.get_time, [{ stat = "p50", label = "p50 (s)" }]), concat(local.get_time, [{ stat = "p99", label = "p99 (s)" }])] }),
    jsonencode({ title = "Read cache: Memory of the cache", statistic = "Maximum", lines = concat([local.node_lines.bytes], local.scraped.bound) }),
    jsonencode({ title = "Read cache: Entries", statistic = "Sum", lines = concat([for line in local.scraped.entries : concat(line, [{ stat = "Maximum" }])], [local.node_lines.evictions], local.scraped.too_big) }),
    jsonencode({ title = "Read cache: The ring", statistic = "Minimum", lines = concat([local.node_lines.ring_nodes, local.node_lines.keeping], local.scraped.epoch) }),
    jsonencode({ title = "Read cache: What is in the way", statistic = "Sum", lines = concat([for reader in ["node", "front_end"] : [var.metrics.namespace, var.metrics.shed, "Service", local.readers[reader]]], [for line in local.scraped.waiting : concat(line, [{ stat = "Maximum" }])], local.scraped.failures, [for line in local.scraped.settling : concat(line, [{ stat = "Maximum" }])]) }),
  ]
}
