output "next" {
  description = "What a person does next, in this order."
  value = merge({
    "1 credentials" = module.cluster.credentials
    "2 images"      = "docker push ${module.registry.url}/TARGET:VERSION"
    "3 models"      = "MODEL_STORE=${module.bucket.model_store} as ${module.bucket.account}"
  }, module.platform.next)
}
