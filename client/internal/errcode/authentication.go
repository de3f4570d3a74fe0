package errcode

import "errors"

// ErrAuthentication is in every error that says that client and broker do not believe each other, with or without a
// code. Trying again does not mend it. Package client documents it for users.
var ErrAuthentication = errors.New("authentication failed")
