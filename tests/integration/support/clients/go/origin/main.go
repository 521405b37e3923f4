// origin is an internet of its own for the names that it is given: HTTP/1.1 and HTTP/2 on port 443, with a package of
// Python's and one of npm's, a repository of git's, and a gRPC method that says again what it was told.
package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"time"
)

const wheel = "greeting-1.0-py3-none-any.whl"

func main() {
	names := os.Args[1:]
	pair, authority := certificate(names)
	repository()
	python, npm := pythonPackage(), npmPackage()
	routes := http.NewServeMux()
	routes.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
	routes.HandleFunc("/simple/greeting/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<a href="/%s">%s</a>`, wheel, wheel)
	})
	routes.HandleFunc("/"+wheel, func(w http.ResponseWriter, r *http.Request) { w.Write(python) })
	routes.HandleFunc("/npm/greeting", func(w http.ResponseWriter, r *http.Request) {
		sum := sha512.Sum512(npm)
		json.NewEncoder(w).Encode(map[string]any{"name": "greeting", "dist-tags": map[string]string{"latest": "1.0.0"},
			"versions": map[string]any{"1.0.0": map[string]any{"name": "greeting", "version": "1.0.0", "dist": map[string]string{
				"tarball":   "https://" + r.Host + "/npm/greeting.tgz",
				"integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:])}}}})
	})
	routes.HandleFunc("/npm/greeting.tgz", func(w http.ResponseWriter, r *http.Request) { w.Write(npm) })
	routes.Handle("/git/", &cgi.Handler{Path: "/usr/bin/git", Args: []string{"http-backend"}, Root: "/git",
		Env: []string{"GIT_PROJECT_ROOT=/tmp/git", "GIT_HTTP_EXPORT_ALL=1"}})
	routes.HandleFunc("/greeting.Greeter/Say", say)
	server := &http.Server{Addr: ":443", TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Println("REQUEST", r.Method, r.Host, r.URL.Path)
			routes.ServeHTTP(w, r)
		})}
	fmt.Print(string(authority))
	log.Fatal(server.ListenAndServeTLS("", ""))
}

// certificate makes one for the names. It is its own authority.
func certificate(names []string) (tls.Certificate, []byte) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func repository() {
	script := `git init -q --bare -b main /tmp/git/greeting.git && git init -q -b main /tmp/work && cd /tmp/work &&
		echo hello > file && git add file && git -c user.name=a -c user.email=a@test commit -q -m file && git push -q /tmp/git/greeting.git main`
	if said, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		log.Fatalf("%v: %s", err, said)
	}
}

// say answers a unary call of gRPC's (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
func say(w http.ResponseWriter, r *http.Request) {
	message := must(io.ReadAll(r.Body))
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	w.Write(message)
	w.Header().Set("Grpc-Status", "0")
}

func pythonPackage() []byte {
	var file bytes.Buffer
	archive := zip.NewWriter(&file)
	for _, each := range [][2]string{
		{"greeting.py", "def greet():\n    return 'hello'\n"},
		{"greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n"},
		{"greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{"greeting-1.0.dist-info/RECORD", "greeting.py,,\n"},
	} {
		io.WriteString(must(archive.Create(each[0])), each[1])
	}
	archive.Close()
	return file.Bytes()
}

func npmPackage() []byte {
	var file bytes.Buffer
	packed := gzip.NewWriter(&file)
	archive := tar.NewWriter(packed)
	text := `{"name": "greeting", "version": "1.0.0"}`
	archive.WriteHeader(&tar.Header{Name: "package/package.json", Mode: 0o644, Size: int64(len(text))})
	io.WriteString(archive, text)
	archive.Close()
	packed.Close()
	return file.Bytes()
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
