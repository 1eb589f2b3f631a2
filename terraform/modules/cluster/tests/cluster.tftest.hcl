mock_provider "google" {
  mock_resource "google_container_cluster" {
    defaults = {
      endpoint = "203.0.113.1"
    }
  }
  mock_resource "google_service_account" {
    defaults = { email = "nodes@cartwin-test.iam.gserviceaccount.com" }
  }
}

variables {
  name           = "cartwin-test"
  project        = "cartwin-test"
  region         = "europe-west3"
  network        = "projects/p/global/networks/n"
  subnetwork     = "projects/p/regions/r/subnetworks/s"
  range_names    = { pods = "pods", services = "services" }
  administrators = { office = "203.0.113.0/24" }
  pools = {
    system = { machine_type = "e2-standard-4", least = 1, most = 2 }
    kafka  = { machine_type = "n2d-standard-4", least = 1, most = 2, taint = "cartwin.io/kafka" }
    app    = { machine_type = "e2-standard-4", least = 1, most = 4, spot = true }
  }
}

run "nodes_are_private_and_have_little_right" {
  assert {
    condition     = google_container_cluster.this.private_cluster_config[0].enable_private_nodes
    error_message = "nodes have no public address"
  }
  assert {
    condition     = [for block in google_container_cluster.this.master_authorized_networks_config[0].cidr_blocks : block.cidr_block] == ["203.0.113.0/24"]
    error_message = "the control plane is reached by administrators only"
  }
  assert {
    condition     = google_container_cluster.this.workload_identity_config[0].workload_pool == "cartwin-test.svc.id.goog"
    error_message = "pods prove themselves by workload identity"
  }
  assert {
    condition     = google_container_cluster.this.location == "europe-west3" && google_container_cluster.this.remove_default_node_pool
    error_message = "regional, with our pools alone"
  }
  assert {
    condition     = google_container_cluster.this.datapath_provider == "ADVANCED_DATAPATH"
    error_message = "NetworkPolicies are kept"
  }
  assert {
    condition     = google_container_cluster.this.deletion_protection && google_container_cluster.this.enable_shielded_nodes
    error_message = "not destroyed by mistake, and shielded"
  }
  assert {
    condition     = google_container_cluster.this.ip_allocation_policy[0].cluster_secondary_range_name == "pods" && google_container_cluster.this.ip_allocation_policy[0].services_secondary_range_name == "services"
    error_message = "pods and services have the ranges of the network"
  }
  assert {
    condition     = sort([for member in google_project_iam_member.nodes : member.role]) == tolist(["roles/artifactregistry.reader", "roles/logging.logWriter", "roles/monitoring.metricWriter"])
    error_message = "nodes log, measure and read images, nothing else"
  }
  assert {
    condition     = output.credentials == "gcloud container clusters get-credentials cartwin-test --region europe-west3 --project cartwin-test"
    error_message = "the next command is told"
  }
}

run "pools_are_as_they_were_asked_for" {
  assert {
    condition     = sort(keys(google_container_node_pool.this)) == tolist(["app", "kafka", "system"])
    error_message = "three pools"
  }
  assert {
    condition     = [for pool in ["app", "kafka", "system"] : google_container_node_pool.this[pool].node_config[0].spot] == [true, false, false]
    error_message = "only who can be lost is spot"
  }
  assert {
    condition     = google_container_node_pool.this["kafka"].node_config[0].taint[0].key == "cartwin.io/kafka" && google_container_node_pool.this["kafka"].node_config[0].taint[0].effect == "NO_SCHEDULE"
    error_message = "kafka's nodes are for kafka: its pods tolerate cartwin.io/kafka"
  }
  assert {
    condition     = length(google_container_node_pool.this["app"].node_config[0].taint) == 0
    error_message = "the others take everybody"
  }
  assert {
    condition     = google_container_node_pool.this["kafka"].node_config[0].disk_type == "pd-ssd"
    error_message = "kafka writes to SSD"
  }
  assert {
    condition     = google_container_node_pool.this["app"].autoscaling[0].min_node_count == 1 && google_container_node_pool.this["app"].autoscaling[0].max_node_count == 4
    error_message = "least and most are those that were given"
  }
  assert {
    condition     = alltrue([for pool in google_container_node_pool.this : pool.node_config[0].service_account == "nodes@cartwin-test.iam.gserviceaccount.com" && pool.node_config[0].workload_metadata_config[0].mode == "GKE_METADATA"])
    error_message = "nodes run as their own account and hide its token from pods"
  }
  assert {
    condition     = alltrue([for pool in google_container_node_pool.this : pool.node_config[0].shielded_instance_config[0].enable_secure_boot && pool.management[0].auto_repair && pool.management[0].auto_upgrade])
    error_message = "nodes boot what is signed, and are repaired and kept new"
  }
  assert {
    condition     = alltrue([for pool in google_container_node_pool.this : pool.upgrade_settings[0].max_surge == 1 && pool.upgrade_settings[0].max_unavailable == 0])
    error_message = "an upgrade adds a node before it takes one"
  }
}

run "the_whole_world_is_no_administrator" {
  command = plan
  variables {
    administrators = { everybody = "0.0.0.0/0" }
  }
  expect_failures = [var.administrators]
}

run "kafka_is_never_spot" {
  command = plan
  variables {
    pools = {
      system = { machine_type = "e2-standard-4", least = 1, most = 2 }
      kafka  = { machine_type = "n2d-standard-4", least = 1, most = 2, spot = true }
      app    = { machine_type = "e2-standard-4", least = 1, most = 4 }
    }
  }
  expect_failures = [var.pools]
}

run "a_pool_that_is_missing_is_named" {
  command = plan
  variables {
    pools = { app = { machine_type = "e2-standard-4", least = 3, most = 1 } }
  }
  expect_failures = [var.pools]
}
