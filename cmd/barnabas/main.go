// Command barnabas is the whole system in one file: broker, controller and command line.
// `barnabas serve` starts a broker; every other command is a client of one.
package main

import (
	"context"
	"os"

	"barnabas/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
