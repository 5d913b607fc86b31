// Package ext stands in for a package that Traefik's repository keeps beside its module, with nothing of its own in it.
package ext

// HTTP adds nothing to the dynamic configuration.
type HTTP struct{}

// Router adds nothing to a router.
type Router struct{}
