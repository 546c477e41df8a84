// Modules of others, of which only files are taken: the CustomResourceDefinitions of the kinds that deploy/examples has.
module metsuke.dev/metsuke/integration/tools/crds

go 1.26.1

require (
	github.com/kubeflow/trainer/v2 v2.1.0
	sigs.k8s.io/agent-sandbox v0.2.1
)
