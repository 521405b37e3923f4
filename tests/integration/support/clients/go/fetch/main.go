// fetch prints what a URL answers, as any program does that knows net/http alone.
package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	log.SetFlags(0)
	answer, err := http.Get(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(os.Stdout, answer.Body)
	if answer.StatusCode != http.StatusOK {
		log.Fatal(answer.Status)
	}
}
