module bottle/clients

go 1.26
