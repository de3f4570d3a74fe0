package sim

import _ "github.com/anishathalye/porcupine" // of the check of metadata
