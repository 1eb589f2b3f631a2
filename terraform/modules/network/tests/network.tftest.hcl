mock_provider "google" {}

run "nodes_have_no_public_way_in" {
  variables {
    name   = "cartwin-test"
    region = "europe-west3"
  }
  assert {
    condition     = google_compute_network.this.auto_create_subnetworks == false
    error_message = "subnetworks are made by hand only"
  }
  assert {
    condition     = google_compute_subnetwork.nodes.private_ip_google_access
    error_message = "nodes reach Google's services without public addresses"
  }
  assert {
    condition     = [for range in google_compute_subnetwork.nodes.secondary_ip_range : range.range_name] == [output.range_names.pods, output.range_names.services]
    error_message = "the outputs name the ranges that there are"
  }
  assert {
    condition     = google_compute_router_nat.this.source_subnetwork_ip_ranges_to_nat == "ALL_SUBNETWORKS_ALL_IP_RANGES"
    error_message = "nodes and pods leave through the NAT"
  }
  assert {
    condition     = google_compute_router_nat.this.router == google_compute_router.this.name
    error_message = "the NAT belongs to the network's router"
  }
}

run "a_zone_is_no_region" {
  command = plan
  variables {
    name   = "cartwin-test"
    region = "europe-west3-a"
  }
  expect_failures = [var.region]
}

run "a_public_range_is_refused" {
  command = plan
  variables {
    name   = "cartwin-test"
    region = "europe-west3"
    ranges = { nodes = "10.0.0.0/20", pods = "8.8.0.0/16", services = "10.1.0.0/20" }
  }
  expect_failures = [var.ranges]
}

run "a_name_that_google_refuses_is_refused_here" {
  command = plan
  variables {
    name   = "Cartwin_1"
    region = "europe-west3"
  }
  expect_failures = [var.name]
}
