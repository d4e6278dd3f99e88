"""`bidding deploy`: a new version onto an environment on AWS that Terraform has made. docs/decisions/0066."""
