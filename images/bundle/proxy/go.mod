module bottle/proxy

go 1.26.0

require (
	github.com/andybalholm/brotli v1.3.0
	github.com/klauspost/compress v1.20.4
	golang.org/x/net v0.62.0
	golang.org/x/sync v0.25.0
)

require golang.org/x/text v0.43.0 // indirect
