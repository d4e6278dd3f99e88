# What is kept in the registry, in an account that is made up.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
}

run "images_that_run_are_kept" {
  command = plan

  # dev and prod share the repositories: what one of them pushes must not push out what the other one runs.
  assert {
    condition = alltrue([for rules in values(output.kept_images) :
      [for rule in rules : try(rule.selection.tagPrefixList, [])] == [["prod-"], ["dev-"], []]
      && rules[2].selection.tagStatus == "any"
      && rules[2].rulePriority > max(rules[0].rulePriority, rules[1].rulePriority)
    ])
    error_message = "Images that ran in an environment have to be kept apart from all others."
  }
}
