module barnabas/test/compat/clients/program

go 1.26.0
