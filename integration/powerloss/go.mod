module metsuke.dev/metsuke/integration/powerloss

go 1.26.6

require (
	golang.org/x/sys v0.49.0
	metsuke.dev/metsuke v0.0.0
)

require github.com/hanwen/go-fuse/v2 v2.12.1

require github.com/klauspost/compress v1.20.3 // indirect

replace metsuke.dev/metsuke => ../..
