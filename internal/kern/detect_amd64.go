//go:build amd64 && !noasm

package kern

import "golang.org/x/sys/cpu"

func detect() []*Set {
	var found []*Set
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasFMA {
		avx512 := &Set{name: "avx512", lanes: 16, rows: [2]int{16, 12}, halves: halves(), asm: &assembly{
			gemm: [2][]gemmFunc{
				{gemm1x1AVX512, gemm2x1AVX512, gemm3x1AVX512, gemm4x1AVX512, gemm5x1AVX512, gemm6x1AVX512,
					gemm7x1AVX512, gemm8x1AVX512, gemm9x1AVX512, gemm10x1AVX512, gemm11x1AVX512, gemm12x1AVX512,
					gemm13x1AVX512, gemm14x1AVX512, gemm15x1AVX512, gemm16x1AVX512},
				{gemm1x2AVX512, gemm2x2AVX512, gemm3x2AVX512, gemm4x2AVX512, gemm5x2AVX512, gemm6x2AVX512,
					gemm7x2AVX512, gemm8x2AVX512, gemm9x2AVX512, gemm10x2AVX512, gemm11x2AVX512, gemm12x2AVX512},
			},
			gemmFinish: [2][]gemmFinishFunc{
				{gemmFinish1x1AVX512, gemmFinish2x1AVX512, gemmFinish3x1AVX512, gemmFinish4x1AVX512, gemmFinish5x1AVX512, gemmFinish6x1AVX512, gemmFinish7x1AVX512, gemmFinish8x1AVX512, gemmFinish9x1AVX512, gemmFinish10x1AVX512, gemmFinish11x1AVX512, gemmFinish12x1AVX512,
					gemmFinish13x1AVX512, gemmFinish14x1AVX512, gemmFinish15x1AVX512, gemmFinish16x1AVX512},
				{gemmFinish1x2AVX512, gemmFinish2x2AVX512, gemmFinish3x2AVX512, gemmFinish4x2AVX512, gemmFinish5x2AVX512, gemmFinish6x2AVX512, gemmFinish7x2AVX512, gemmFinish8x2AVX512, gemmFinish9x2AVX512, gemmFinish10x2AVX512, gemmFinish11x2AVX512, gemmFinish12x2AVX512},
			},
			gemmColumns: gemmColumns16x1AVX512, gemmHeld: gemmHeldAVX512,
			finish: finishAVX512, finishAdd: finishAddAVX512, finishMask: finishMaskAVX512, finishAddMask: finishAddMaskAVX512, positive: positiveAVX512,
			depthwise: depthwiseAVX512, depthwiseGrad1: depthwiseGrad1AVX512, depthwiseGrad3: depthwiseGrad3AVX512,
			depthwise3x3: depthwise3x3AVX512, depthwise3x3Mask: depthwise3x3MaskAVX512,
			depthwise3x3Grad: depthwise3x3GradAVX512, depthwise3x3Stride2: depthwise3x3Stride2AVX512, depthwise3x3Stride2Grad: depthwise3x3Stride2GradAVX512,
			depthwise3x3Input: depthwise3x3InputAVX512, depthwise3x3InputMask: depthwise3x3InputMaskAVX512,
			binary: [binaryOps]func(dst, a, b *float32, n int){
				opAdd: elementwiseAddAVX512, opSub: elementwiseSubAVX512, opMul: elementwiseMulAVX512, opDiv: elementwiseDivAVX512, opMax: elementwiseMaxAVX512, opMin: elementwiseMinAVX512,
				opGate: elementwiseGateAVX512, opAbove: elementwiseAboveAVX512, opEqual: elementwiseEqualAVX512, opLess: elementwiseLessAVX512, opLessEqual: elementwiseLessEqualAVX512, opNotEqual: elementwiseNotEqualAVX512,
			},
			unary: [unaryOps]func(dst, a *float32, n int){
				opSqrt: elementwiseSqrtAVX512, opAbs: elementwiseAbsAVX512, opNeg: elementwiseNegAVX512, opSign: elementwiseSignAVX512, opRsqrt: elementwiseRsqrtAVX512,
				opFloor: elementwiseFloorAVX512, opCeil: elementwiseCeilAVX512, opRound: elementwiseRoundAVX512, opExp: elementwiseExpAVX512, opLog: elementwiseLogAVX512,
			},
			selectBy: elementwiseSelectByAVX512, clamp: elementwiseClampAVX512, sumColumns: sumColumnsAVX512,
			winogradInput: winogradInputAVX512, winogradGradient: winogradGradientAVX512,
			winogradOutput: winogradOutputAVX512, winogradOutputAdd: winogradOutputAddAVX512, winogradOutputMask: winogradOutputMaskAVX512, winogradOutputAddMask: winogradOutputAddMaskAVX512,
			winogradTwoInput: winogradTwoInputAVX512, winogradTwoOutput: winogradTwoOutputAVX512, winogradTwoOutputAdd: winogradTwoOutputAddAVX512,
			winogradTwoOutputMask: winogradTwoOutputMaskAVX512, winogradTwoOutputAddMask: winogradTwoOutputAddMaskAVX512,
			winogradWeights: winogradWeightsAVX512, winogradWeightsGrad: winogradWeightsGradAVX512,
			winogradProducts: []winogradProductsFunc{winogradProducts1AVX512, winogradProducts2AVX512, winogradProducts3AVX512, winogradProducts4AVX512},
			transpose:        transposeAVX512, peak: peakAVX512,
		}}
		if cpu.X86.HasAVX512BF16 {
			withBF16(avx512, bf16(*avx512.asm))
		}
		found = append(found, avx512)
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		found = append(found, &Set{name: "avx2", lanes: 8, rows: [2]int{6, 6}, asm: &assembly{
			gemm: [2][]gemmFunc{
				{gemm1x1AVX2, gemm2x1AVX2, gemm3x1AVX2, gemm4x1AVX2, gemm5x1AVX2, gemm6x1AVX2},
				{gemm1x2AVX2, gemm2x2AVX2, gemm3x2AVX2, gemm4x2AVX2, gemm5x2AVX2, gemm6x2AVX2},
			},
			gemmFinish: [2][]gemmFinishFunc{
				{gemmFinish1x1AVX2, gemmFinish2x1AVX2, gemmFinish3x1AVX2, gemmFinish4x1AVX2, gemmFinish5x1AVX2, gemmFinish6x1AVX2},
				{gemmFinish1x2AVX2, gemmFinish2x2AVX2, gemmFinish3x2AVX2, gemmFinish4x2AVX2, gemmFinish5x2AVX2, gemmFinish6x2AVX2},
			},
			finish: finishAVX2, finishAdd: finishAddAVX2, finishMask: finishMaskAVX2, finishAddMask: finishAddMaskAVX2, positive: positiveAVX2,
			depthwise: depthwiseAVX2, depthwiseGrad1: depthwiseGrad1AVX2, depthwiseGrad3: depthwiseGrad3AVX2,
			depthwise3x3: depthwise3x3AVX2, depthwise3x3Mask: depthwise3x3MaskAVX2,
			depthwise3x3Grad: depthwise3x3GradAVX2, depthwise3x3Stride2: depthwise3x3Stride2AVX2, depthwise3x3Stride2Grad: depthwise3x3Stride2GradAVX2,
			depthwise3x3Input: depthwise3x3InputAVX2, depthwise3x3InputMask: depthwise3x3InputMaskAVX2,
			binary: [binaryOps]func(dst, a, b *float32, n int){
				opAdd: elementwiseAddAVX2, opSub: elementwiseSubAVX2, opMul: elementwiseMulAVX2, opDiv: elementwiseDivAVX2, opMax: elementwiseMaxAVX2, opMin: elementwiseMinAVX2,
				opGate: elementwiseGateAVX2, opAbove: elementwiseAboveAVX2, opEqual: elementwiseEqualAVX2, opLess: elementwiseLessAVX2, opLessEqual: elementwiseLessEqualAVX2, opNotEqual: elementwiseNotEqualAVX2,
			},
			unary: [unaryOps]func(dst, a *float32, n int){
				opSqrt: elementwiseSqrtAVX2, opAbs: elementwiseAbsAVX2, opNeg: elementwiseNegAVX2, opSign: elementwiseSignAVX2, opRsqrt: elementwiseRsqrtAVX2,
				opFloor: elementwiseFloorAVX2, opCeil: elementwiseCeilAVX2, opRound: elementwiseRoundAVX2, opExp: elementwiseExpAVX2, opLog: elementwiseLogAVX2,
			},
			selectBy: elementwiseSelectByAVX2, clamp: elementwiseClampAVX2, sumColumns: sumColumnsAVX2,
			winogradInput: winogradInputAVX2, winogradGradient: winogradGradientAVX2,
			winogradOutput: winogradOutputAVX2, winogradOutputAdd: winogradOutputAddAVX2, winogradOutputMask: winogradOutputMaskAVX2, winogradOutputAddMask: winogradOutputAddMaskAVX2,
			winogradTwoInput: winogradTwoInputAVX2, winogradTwoOutput: winogradTwoOutputAVX2, winogradTwoOutputAdd: winogradTwoOutputAddAVX2,
			winogradTwoOutputMask: winogradTwoOutputMaskAVX2, winogradTwoOutputAddMask: winogradTwoOutputAddMaskAVX2,
			winogradWeights: winogradWeightsAVX2, winogradWeightsGrad: winogradWeightsGradAVX2,
			winogradProducts: []winogradProductsFunc{winogradProducts1AVX2},
			transpose:        transposeAVX2, peak: peakAVX2,
		}})
	}
	return found
}

// bf16 changes the kernels of avx512 to those of bfloat16.
func bf16(a assembly) *assembly {
	a.gemm = [2][]gemmFunc{
		{gemm1x1AVX512BF16, gemm2x1AVX512BF16, gemm3x1AVX512BF16, gemm4x1AVX512BF16, gemm5x1AVX512BF16, gemm6x1AVX512BF16,
			gemm7x1AVX512BF16, gemm8x1AVX512BF16, gemm9x1AVX512BF16, gemm10x1AVX512BF16, gemm11x1AVX512BF16, gemm12x1AVX512BF16,
			gemm13x1AVX512BF16, gemm14x1AVX512BF16, gemm15x1AVX512BF16, gemm16x1AVX512BF16},
		{gemm1x2AVX512BF16, gemm2x2AVX512BF16, gemm3x2AVX512BF16, gemm4x2AVX512BF16, gemm5x2AVX512BF16, gemm6x2AVX512BF16,
			gemm7x2AVX512BF16, gemm8x2AVX512BF16, gemm9x2AVX512BF16, gemm10x2AVX512BF16, gemm11x2AVX512BF16, gemm12x2AVX512BF16},
	}
	a.gemmFinish = [2][]gemmFinishFunc{
		{gemmFinish1x1AVX512BF16, gemmFinish2x1AVX512BF16, gemmFinish3x1AVX512BF16, gemmFinish4x1AVX512BF16, gemmFinish5x1AVX512BF16, gemmFinish6x1AVX512BF16,
			gemmFinish7x1AVX512BF16, gemmFinish8x1AVX512BF16, gemmFinish9x1AVX512BF16, gemmFinish10x1AVX512BF16, gemmFinish11x1AVX512BF16, gemmFinish12x1AVX512BF16,
			gemmFinish13x1AVX512BF16, gemmFinish14x1AVX512BF16, gemmFinish15x1AVX512BF16, gemmFinish16x1AVX512BF16},
		{gemmFinish1x2AVX512BF16, gemmFinish2x2AVX512BF16, gemmFinish3x2AVX512BF16, gemmFinish4x2AVX512BF16, gemmFinish5x2AVX512BF16, gemmFinish6x2AVX512BF16,
			gemmFinish7x2AVX512BF16, gemmFinish8x2AVX512BF16, gemmFinish9x2AVX512BF16, gemmFinish10x2AVX512BF16, gemmFinish11x2AVX512BF16, gemmFinish12x2AVX512BF16},
	}
	a.gemmColumns, a.gemmHeld, a.winogradProducts = nil, nil, nil
	a.winogradInput, a.winogradTwoInput = winogradInputAVX512BF16, winogradTwoInputAVX512BF16
	a.pairs, a.pairRows = pairsAVX512BF16, pairRowsAVX512BF16
	return &a
}

// halves recognises a Zen 4: it has bfloat16 in AVX-512 but not VNNI's integer dot products in AVX, and those after it have both. A
// Cooper Lake looks the same, and loses a little by it.
func halves() bool { return cpu.X86.HasAVX512BF16 && !cpu.X86.HasAVXVNNI }
