module example.com/quickcmd/v1-controller

go 1.19
