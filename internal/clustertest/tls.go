package clustertest

import (
	"barnabas/internal/certs/certtest"
)

const (
	// KeystoreFile and TruststoreFile are where Certify puts certificates.
	KeystoreFile   = "/node.pem"
	TruststoreFile = "/ca.pem"
)

// Certify takes the secret from nodes and gives them certificates of an authority, each for its own host, from the
// next start on.
func (w *World) Certify(ca *certtest.Authority, nodes ...*Node) {
	for _, n := range nodes {
		n.secret = ""
		n.Set("cluster.secret.file", "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:SSL",
			"ssl.keystore.type=PEM", "ssl.keystore.location="+KeystoreFile, "ssl.truststore.type=PEM", "ssl.truststore.location="+TruststoreFile)
		n.SetFile(KeystoreFile, ca.Keystore(certtest.Node{Hosts: []string{n.Name}}))
		n.SetFile(TruststoreFile, ca.PEM())
	}
}

// SetFile gives a node a file, at once and at every start.
func (n *Node) SetFile(name, text string) {
	n.files[name] = text
	n.write(name, text)
}
