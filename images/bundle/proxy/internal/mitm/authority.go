// Package mitm makes the certificates under which the proxies answer for the hosts that clients ask for.
package mitm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	// cached bounds the certificates that are kept: beyond it the agent makes up names.
	cached   = 1024
	validity = 90 * 24 * time.Hour
	// authorityValidity outlasts any bottle: an authority is made at every start.
	authorityValidity = 365 * 24 * time.Hour
	tolerance         = 24 * time.Hour
)

// An Authority signs certificates for hosts. One key serves all of them.
type Authority struct {
	certificate *x509.Certificate
	signer      crypto.Signer
	key         *ecdsa.PrivateKey
	mutex       sync.Mutex
	made        map[string]*tls.Certificate
}

// Load reads an authority's certificate and key from a PEM file.
func Load(path string) (*Authority, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	a := &Authority{made: make(map[string]*tls.Certificate)}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			if a.certificate == nil {
				a.certificate, err = x509.ParseCertificate(block.Bytes)
			}
		case "EC PRIVATE KEY":
			a.signer, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			a.signer, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			var key any
			if key, err = x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				a.signer, _ = key.(crypto.Signer)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if a.certificate == nil || a.signer == nil {
		return nil, fmt.Errorf("%s: holds no certificate with its key", path)
	}
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return a, err
}

// PEM is the authority's certificate, for those who are to trust it.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// For returns the certificate for a host name or address.
func (a *Authority) For(host string) (*tls.Certificate, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if made := a.made[host]; made != nil && time.Now().Before(made.Leaf.NotAfter.Add(-tolerance)) {
		return made, nil
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-tolerance),
		NotAfter:     min2(now.Add(validity), a.certificate.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	// A common name may be no longer than 64 characters; the names that count are below.
	if len(host) <= 64 {
		template.Subject = pkix.Name{CommonName: host}
	}
	if address, err := netip.ParseAddr(host); err == nil {
		template.IPAddresses = append(template.IPAddresses, address.AsSlice())
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, a.key.Public(), a.signer)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if len(a.made) >= cached {
		clear(a.made)
	}
	a.made[host] = &tls.Certificate{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: a.key, Leaf: leaf}
	return a.made[host], nil
}

func min2(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Roots reads the authorities that origins are checked by.
func Roots(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New(path + ": holds no certificate")
	}
	return pool, nil
}

// New makes an authority: its key (SEC 1) and its certificate, both in PEM. It signs certificates of hosts and no other
// authorities.
func New(name string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"bottle"}, CommonName: name},
		NotBefore:             now.Add(-tolerance),
		NotAfter:              now.Add(authorityValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})...), nil
}
